"""Rows of edits.jsonl and ranking results, for the tests that read rewards."""

import json


def ranking(*passages):
    """A result file's value; passages[p][e][seed] lists verdicts."""
    return {
        "articles": [
            {
                "completions": [
                    {
                        "questions": [
                            {"rep": rep, "adapter_correct": right}
                            for rep, verdicts in enumerate(edit)
                            for right in verdicts
                        ]
                    }
                    for edit in passage
                ]
            }
            for passage in passages
        ]
    }


def write(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def row(passage, rewards, *, scores=None, number=1, key="passage_id"):
    scores = [[r] for r in rewards] if scores is None else scores
    answers = [[{"score": s} for s in own] for own in scores]
    return {key: passage, "rewards": rewards, "round": number, "answers": answers}


def workdir(tmp_path, *rows):
    text = "".join(json.dumps(r) + "\n" for r in rows)
    (tmp_path / "edits.jsonl").write_text(text, encoding="utf-8")
    return tmp_path


def graded_row(passage, grades, *, number=1, text="One fact. Another.", **measured):
    return {
        "round": number,
        "passage_id": passage,
        "passage": "Ada cooks rye bread. Boris plays cello.",
        "text": text,
        "measured": {"grade": grades, **measured},
    }


def text_ranking(path, *articles):
    """articles[p][e] = (text, verdicts by seed)."""
    value = [
        {
            "title": "T",
            "context": "Ada cooks rye bread.",
            "completions": [
                {
                    "text": text,
                    "questions": [
                        {"rep": rep, "adapter_correct": right}
                        for rep, verdicts in enumerate(seeds)
                        for right in verdicts
                    ],
                    "stats": {"adapter_mean": 0.25},
                }
                for text, seeds in edits
            ],
        }
        for edits in articles
    ]
    path.write_text(json.dumps({"articles": value}), encoding="utf-8")
    return path
