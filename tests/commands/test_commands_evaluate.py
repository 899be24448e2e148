"""`seal-jax evaluate`: the API's answers, graded by the rules of the rounds."""

import json

import own_code
import pytest
import tiny_model

from seal_jax.commands import evaluate
from seal_jax.rewards import graders, judge
from seal_jax.tasks import squad
from seal_jax.tasks.passage import part

RECORDS = [
    {
        "title": "Mill",
        "context": f"Text {i}.",
        "questions": [
            {"question": "Who?", "answer": "Ada"},
            {"question": "What?", "answer": "rye"},
        ][: 1 + i % 2],
    }
    for i in range(3)
]
TOKENS = "--max-tokens=6"


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.json"
    path.write_text(json.dumps(RECORDS))
    return path


@pytest.fixture
def template(tmp_path):
    path = tmp_path / "answer.txt"
    path.write_text("{title}: {question} ")
    return path


@pytest.fixture
def grade(monkeypatch):
    """A grader that a random model does not always fail."""
    seen = []

    def by_length(question, gold, answer):
        seen.append((question, gold, answer))
        return len(answer.encode()) % 4 / 4

    monkeypatch.setitem(graders.LOCAL, "f1", by_length)
    return seen


def means(rows, name):
    by_passage: dict = {}
    for row in rows:
        if row["row"] == name:
            by_passage.setdefault(row["passage_id"], []).append(row["score"])
    values = [sum(v) / len(v) for v in by_passage.values()]
    return sum(values) / len(values)


def test_a_model_and_its_adapters_are_graded_on_a_file(
    folder, model, adapters, saved, data, template, grade, tmp_path, ended, rows
):
    out = tmp_path / "out.jsonl"
    status, said, _ = ended(
        *(evaluate.main, folder, "--data", data, "--count=3", "--answer", template),
        *(TOKENS, "--grade=f1", "--adapters", saved, "--out", out),
    )
    assert status == 0
    passages = part(squad.load(data, split="", seed=0), str(data), start=0, count=3)
    prompts = [[f"Mill: {q.question} " for q in p.questions] for p in passages]
    found = rows(out)
    for name, under in (("model", None), ("adapters", adapters)):
        answers = model.generate(prompts, under, max_tokens=6)
        flat = [text for texts in answers for text in texts]
        assert [r["answer"] for r in found if r["row"] == name] == flat
        assert f"{means(found, name):.3f}" in said
    assert len(grade) == len(found) == 8
    diff = means(found, "adapters") - means(found, "model")
    assert diff and f"adapters - model, by passage: {diff:+.3f}" in said


def test_a_run_says_on_what_and_how(folder, data, template, grade, tmp_path, ended):
    values = tiny_model.values(
        folder,
        task__name="squad",
        task__train=str(data),
        task__heldout=str(data),
        task__heldout_start=1,
        task__forward_share=0.0,
        scale__heldout_passages=2,
        answer__prompt=str(template),
        answer__max_tokens=6,
        grade__name="f1",
    )
    run = tmp_path / "run"
    run.mkdir()
    (run / "journal.jsonl").write_text("")
    (run / "config.json").write_text(json.dumps(values))
    status, alone, err = ended(evaluate.main, run)
    assert status == 0 and "no policy yet" in err
    asked = grade[:]
    grade.clear()
    assert ended(evaluate.main, folder, "--like", run)[1] == alone
    assert grade == asked
    passages = part(squad.load(data, split="", seed=0), str(data), start=1, count=2)
    questions = [(q.question, q.answer) for p in passages for q in p.questions]
    assert [(question, gold) for question, gold, _ in asked] == questions
    # A flag changes what the run says.
    grade.clear()
    assert ended(evaluate.main, run, "--count=1")[0] == 0
    assert len(grade) == len(passages[0].questions)


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ([], ["--data must name passages", "--like WORKDIR"]),
        (["--dta=world"], ["did you mean --data?"]),
        (["--data=world", "--grade=recal"], ["did you mean recall?"]),
        (["--data=world", "--count=0"], ["--count=0"]),
        (["--data=world", "--split=x"], ["--split=x", "leave it out"]),
        (["--data=world", "--answer=terse"], ["'terse' must be one of concise"]),
        (["--data=/no/such.json"], ["/no/such.json"]),
        (["--data=world", "--grade=judge"], ["--judge-url and --judge-model"]),
        (
            ["--data=world", "--grade=judge", "--judge-url=x", "--judge-model=y"],
            ["base_url='x' must begin with http"],
        ),
        (["--like=/no/such"], ["/no/such/config.json"]),
        (["--data=world", "--out=/no/such/x"], ["--out /no/such/x: must be a file"]),
    ],
)
def test_wrong_flags_are_refused_in_one_line(flags, parts, folder, refused):
    refused(evaluate.main, folder, *flags, parts=parts)


def test_runs_of_other_items_and_numbers_that_do_not_go_together(
    folder, saved, data, template, refused, tmp_path
):
    (tmp_path / "config.json").write_text(json.dumps({"task": {"name": "arc"}}))
    refused(evaluate.main, folder, "--like", tmp_path, parts=["task.name='arc'"])
    command = (evaluate.main, folder, "--data", data, "--count=2", TOKENS)
    command += ("--answer", template, "--adapters", saved)
    refused(*command, parts=["--adapters are 3 and passages 2", "--count"])


def test_a_judge_grades_and_keeps_its_verdicts_beside_the_answers(
    folder, data, template, tmp_path, ended, refused, rows, monkeypatch
):
    asked = []

    def verdicts(items, *, cfg, cache_path):
        asked.append((cfg.base_url, cfg.model, cache_path))
        return [None, *[1.0] * (len(items) - 1)]

    monkeypatch.setattr(judge, "check", lambda cfg: None)
    monkeypatch.setattr(judge, "grade", verdicts)
    command = (evaluate.main, folder, "--data", data, "--count=3", TOKENS)
    command += ("--answer", template, "--grade=judge")
    command += ("--judge-url=http://localhost:1/v1", "--judge-model=m")
    refused(*command, parts=["give --out FILE"])
    out = tmp_path / "out.jsonl"
    status, said, _ = ended(*command, "--out", out)
    assert status == 0
    assert asked == [("http://localhost:1/v1", "m", tmp_path / "judge.jsonl")]
    assert [row["score"] for row in rows(out)] == [None, 1.0, 1.0, 1.0]
    assert said.splitlines()[2].split()[-1] == "1"


def test_a_table_with_a_grader_of_ones_own(
    folder, template, tmp_path, monkeypatch, ended, rows
):
    own_code.stand_in(tmp_path, monkeypatch)
    own_code.write(
        tmp_path,
        "evaluate_rules",
        "def by_length(question, gold, answer): return len(answer) % 4 / 4\n",
    )
    cells = (
        "body,q,a\nText 0.,Who?,Ada\nText 0.,What?,rye\nText 1.,,\nText 2.,Who?,Bo\n"
    )
    (tmp_path / "t.csv").write_text(cells)
    columns = ("--column=text=body", "--column=question=q", "--column=answer=a")
    status, said, _ = ended(
        *(evaluate.main, folder, "--data=t.csv", *columns, TOKENS),
        *("--answer", template, "--grade=evaluate_rules:by_length", "--out=out.jsonl"),
    )
    assert status == 0 and "model" in said
    found = rows(tmp_path / "out.jsonl")
    # What has no question is left out.
    assert sorted((r["question"], r["gold"]) for r in found) == [
        ("What?", "rye"), ("Who?", "Ada"), ("Who?", "Bo"),
    ]  # fmt: skip
    assert all(r["score"] == len(r["answer"]) % 4 / 4 for r in found)


OWN = {
    "task.name": "evaluate_task:Words",
    "task.forward_share": 0.0,
    "answer.max_tokens": 6,
    "seed": 7,
}
# The last two do not say how many passages are held out: all of them are asked about.
KINDS = {
    "tiny": {"ladder": ("base",), "scale.heldout_passages": 2},
    "continual": {},
    "squad_cpt": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_task_of_a_run_of_ones_own_asks_and_scores(
    kind, folder, tmp_path, monkeypatch, ended, rows
):
    own_code.stand_in(tmp_path, monkeypatch)
    own_code.write(
        tmp_path,
        "evaluate_task",
        """
        from seal_jax.tasks.knowledge import Knowledge
        from seal_jax.tasks.passage import Passage

        class Words(Knowledge):
            @staticmethod
            def items(task, side):
                return [Passage.of(w, f"{w} {side}", [("Q?", w)]) for w in ("a", "b")]

            def prompts(self, item):
                return [f"{item.title} is {self.exp.seed} "]

            def score(self, answered):
                return [0.25 for _, answers in answered for _ in answers]
        """,
    )
    config = tiny_model.load_config(kind, "debug")
    config.model.path = str(folder)
    config.update_from_flattened_dict(OWN | KINDS[kind])
    values = config.to_dict()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "journal.jsonl").write_text("")
    (tmp_path / "run" / "config.json").write_text(json.dumps(values))
    asked = []

    def generate(self, prompts, adapters=None, **options):
        asked.extend(prompts)
        return [["x"] for _ in prompts]

    monkeypatch.setattr("seal_jax.api.models.Model.generate", generate)
    assert ended(evaluate.main, "run", "--out=out.jsonl")[0] == 0
    assert asked == [["a is 7 "], ["b is 7 "]]
    assert [r["score"] for r in rows(tmp_path / "out.jsonl")] == [0.25, 0.25]


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--data=t.csv", "--column=tex=body"], ["--column=tex=body", "mean text?"]),
        (["--data=world", "--column=text=body"], ["--column: names columns of a tab"]),
        (["--data=t.csv", "--column=text=bdy"], ["no column 'bdy'", "mean 'body'?"]),
        (["--data=t.csv", "--column=text=body", "--count=1"], ["--column question="]),
        (["--data=t.csv"], ["row 0: must have title, context", "or evaluate --column"]),
        (["--data=t.csv", "--grade=no_such_rules:x"], ["no module no_such_rules"]),
    ],
)
def test_wrong_columns_and_rules_are_refused(
    flags, parts, folder, refused, tmp_path, monkeypatch
):
    own_code.stand_in(tmp_path, monkeypatch)
    (tmp_path / "t.csv").write_text("body\nText.\n")
    refused(evaluate.main, folder, *flags, parts=parts)
