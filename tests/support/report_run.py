"""Small workdirs and files for the tests of reports."""

import json

from seal_jax.analysis import forgetting
from seal_jax.continual import files as continual_files
from seal_jax.runtime import records

HOSTILE = "<script>alert('x')</script>&amp;\x00\ud800\"]]>"

# Two runs over three passages; the second is twice the first.
LOW = ((0.4, 0.2, 0.3), (0.5,), (0.3, 0.4), (0.1, 0.2, 0.45))
HIGH = tuple(tuple(2 * x for x in row) for row in LOW)


def matrices():
    return [forgetting.Matrix(m, 1, None, "passages <1>", "m") for m in (LOW, HIGH)]


def continual_folder(path):
    continual_files.write(path, matrices())
    return path


def ladder(**means):
    return [
        {"name": n, "mean": m, "se": 0.02, "low": m - 0.04, "high": m + 0.04, "n": 9}
        for n, m in means.items()
    ]


def edit(round_index, passage, number, rewards, **changes):
    text = f"the {passage} of round {round_index} says edit {number} of all things"
    return {
        "round": round_index,
        "passage_id": passage,
        "title": passage,
        "passage": f"what {passage} says is the text of all things",
        "edit": number,
        "prompt": "Say it.",
        "text": text,
        "lines": [text],
        "rewards": rewards,
        "reward": sum(rewards) / len(rewards),
        "answers": [[{"score": r}] for r in rewards],
        "kept": number == 0,
        "failed": None,
    } | changes


def edits(rounds, **changes):
    """Of two passages, two edits, two seeds; later rounds have higher rewards."""
    return [
        edit(r, p, e, [0.1 * r + 0.2 * e, 0.1 * r + 0.3 * e + 0.05], **changes)
        for r in range(1, rounds + 1)
        for p in "ab"
        for e in range(2)
    ]


def rounds_run(path, *, rounds=3, stopped=None, **changes):
    """A workdir of a knowledge run."""
    means = {f"round_{r}": 0.3 + 0.1 * r for r in range(1, rounds + 1)}
    last = f"round_{rounds}"
    summary = {
        "ladder": ladder(base=0.125, self_edits=0.25, **means),
        "paired": [{"a": last, "b": "self_edits", "diff": 0.35, "se": 0.05, "z": 7.0}],
        "rounds": [
            {
                "round": r,
                "sampled_mean": 0.2 + 0.1 * r,
                "best_mean": 0.3 + 0.1 * r,
                "kept_mean": 0.25 + 0.1 * r,
                "kept": 4,
                "trainings": 8,
                "novelty": {"overlap": 0.0625 * r},
            }
            for r in range(1, rounds + 1)
        ],
        "stopped": stopped,
        "adapters": 100,
        "seconds": {"round_1/adapt": 10.0},
        "config_hash": "0123",
    } | changes
    records.open_workdir(path, {"name": path.name})
    records.write_json(path / "summary.json", summary)
    records.write_jsonl(path / "edits.jsonl", edits(rounds))
    return path


def arm(name, **changes):
    pooled = forgetting.pool(matrices())
    estimate = {"mean": 0.625, "se": 0.03125, "low": 0.5, "high": 0.75}
    return {
        "name": name,
        "sequences": 2,
        "matrix": {"means": pooled.means, "deviations": pooled.deviations},
        "learned": estimate,
        "kept": estimate | {"mean": 0.375},
        "final": estimate | {"mean": 0.4375},
        "general_before": estimate,
        "general_after": estimate | {"mean": 0.5},
        "general": [0.625, 0.6, 0.55, 0.5],
        "adapters": 6,
        "tokens": 12345,
        "answers": 77,
        "seconds": 1.5,
        "committed": 0.75,
        "scale": 0.8125,
    } | changes


def continual_run(path, *names, files=True, **changes):
    """A workdir of a continual run, with the arms' runs as files or without."""
    names = names or ("merge", "replay")
    pair = {"a": names[-1], "b": names[0], "what": "final", "diff": 0.125}
    summary = {
        "kind": "continual",
        "arms": [arm(name) for name in names],
        "paired": [pair | {"se": 0.05, "z": 2.5, "low": 0.03, "high": 0.22, "n": 2}],
        "adapters": 12,
        "tokens": 24690,
        "seconds": {"merge/adapt": 3.0},
    } | changes
    records.open_workdir(path, {"name": path.name})
    records.write_json(path / "summary.json", summary)
    if files:
        for name in names:
            continual_folder(path / "continual" / name)
    return path


def deploy_run(path, *names, nights=2, **changes):
    """A workdir of a run on the job; night 1 has nothing before it to keep."""
    names = names or ("none", "edits")
    each = {"mean": 0.5, "se": 0.125}
    keys = ("learned", "rephrased", "unasked", "in_context", "general", "drift")
    by_night = {key: [each] * nights for key in keys}
    by_night["kept"] = [None, *[{"mean": 0.25, "se": None}] * (nights - 1)]
    costs = {"adapters": [2] * nights, "tokens": [1200] * nights}
    costs |= {"teacher_tokens": [0] * nights, "seconds": [1.5] * nights}
    # Of a night before these were counted nothing is known.
    costs |= {"written_tokens": [None, *[300] * (nights - 1)]}
    row = {key: each for key in (*keys, "kept", "final")}
    row |= {"by_night": by_night, "costs": costs}
    pair = {"a": names[-1], "b": names[0], "what": "final", "diff": 0.125}
    summary = {
        "kind": "deploy",
        "streams": 2,
        "nights": nights,
        "gold": "given",
        "chooses": False,
        "arms": [{"name": name, **row} for name in names],
        "paired": [pair | {"se": 0.05, "z": 2.5, "low": 0.03, "high": 0.22, "n": 2}],
        "adapters": 8,
        "tokens": 4800,
        "seconds": {"deploy/edits/1/adapt": 3.0},
    } | changes
    records.open_workdir(path, {"name": path.name})
    records.write_json(path / "summary.json", summary)
    return path


def question(right, seed):
    return {
        "rep": seed,
        "adapter_answer": "x" if right else "",
        "adapter_correct": right,
        "baseline_correct": False,
    }


def ranking_file(path):
    """A SEAL ranking result: three passages, two edits, two seeds, two questions."""
    verdicts = (((1, 1, 0, 1), (0, 0, 1, 0)), ((1, 1, 1, 1), (0, 1, 0, 0)))
    verdicts += (((1, 0, 0, 0), (1, 1, 0, 1)),)
    articles = [
        {
            "title": f"t{i}",
            "context": f"c{i}",
            "completions": [
                {
                    "stats": {},
                    "text": "some words to train on",
                    "questions": [
                        question(bool(v), seed=k // 2) for k, v in enumerate(edit_)
                    ],
                }
                for edit_ in passage
            ],
        }
        for i, passage in enumerate(verdicts)
    ]
    path.write_text(json.dumps({"articles": articles, "overall": {}}))
    return path


def edits_file(path, words="all of the other things"):
    """A SEAL file of self-edits."""
    rows = [
        {
            "title": f"t{i}",
            "context": f"the text of passage {i} in full",
            "prompt": None,
            "completions": [f"{words} {i} {k}" for k in range(3)],
        }
        for i in range(2)
    ]
    path.write_text(json.dumps(rows))
    return path
