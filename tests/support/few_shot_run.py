"""A few-shot run of three held-out tasks and two training tasks, as its files."""

from seal_jax.report import html_page
from seal_jax.runtime import records

A, B, C = [[1, 2], [3, 0]], [[4, 4]], [[5], [6], [7]]
BLANK = [[0]]

TRAIN = [{"input": [[0, 3]], "output": [[3], [0]]}, {"input": A, "output": B}]
ITEMS = [
    {"task_id": "one", "train": TRAIN, "test": [{"input": A, "output": A}]},
    {
        "task_id": "two",
        "train": TRAIN,
        "test": [{"input": A, "output": B}, {"input": B, "output": C}],
    },
    {"task_id": "three", "train": TRAIN, "test": [{"input": C, "output": C}]},
    {"task_id": "old", "train": TRAIN, "test": [{"input": B, "output": B}]},
    {"task_id": "older", "train": TRAIN, "test": [{"input": C, "output": A}]},
]

RIGHT = {
    "one": [{"guesses": [A, B], "right": True, "views": 7, "parsed": 7}],
    "two": [
        {"guesses": [C, B], "right": True, "views": 7, "parsed": 5},
        {"guesses": [C, C], "right": True, "views": 7, "parsed": 7},
    ],
    "three": [{"guesses": [C, C], "right": True, "views": 7, "parsed": 6}],
    "old": [{"guesses": [B, C], "right": True, "views": 7, "parsed": 7}],
    "older": [{"guesses": [A, A], "right": True, "views": 7, "parsed": 7}],
}
WRONG = {
    name: [
        *tests[:-1],
        {"guesses": [BLANK, BLANK], "right": False, "views": 7, "parsed": 0},
    ]
    for name, tests in RIGHT.items()
}


def edit(task, number, right, *, mesh=("basic",), rate=1e-3, epochs=2, **changes):
    """A row of heldout.jsonl or edits.jsonl: an edit that was trained."""
    switches = {n: n in mesh for n in ("basic", "chain", "repeat", "size")}
    return {
        "task_id": task,
        "edit": number,
        "prompt": "Configure.",
        "text": '{"training": 1}',
        "redrawn": [],
        "refused": None,
        "switches": switches,
        "output_only": True,
        "learning_rate": rate,
        "epochs": epochs,
        "sequences": 20,
        "steps": 10 * epochs,
        "rewards": [float(right)],
        "reward": float(right),
        "answers": [(RIGHT if right else WRONG)[task]],
        "losses": [0.5],
        "failed": None,
    } | changes


def refused(row, why, **changes):
    """The same edit, not trained; without its values if it is not valid."""
    gone = {} if why == "over budget" else {"text": "Sure: {", **NOT_VALID}
    none = {"rewards": [], "reward": None, "answers": [], "losses": []}
    return {**row, **gone, **none, "refused": why, **changes}


NOT_VALID = dict.fromkeys(
    ("switches", "output_only", "learning_rate", "epochs", "sequences", "steps")
)

# Of round_1: six edits, of eight texts; one is over budget, one is not valid at last.
HELDOUT = [
    {"arm": "in_context", "task_id": "one", "answers": [RIGHT["one"]]},
    {"arm": "in_context", "task_id": "two", "answers": [WRONG["two"]]},
    {"arm": "in_context", "task_id": "three", "answers": [WRONG["three"]]},
    *({"arm": "self_edits", **edit(t, 0, False)} for t in ("one", "two")),
    {"arm": "self_edits", **refused(edit("three", 0, False), "not json")},
    {"arm": "round_1", **refused(edit("one", 0, True), "over budget")},
    {"arm": "round_1", **edit("one", 1, True, mesh=("chain", "size"))},
    {"arm": "round_1", **edit("two", 0, True, redrawn=["epochs", "not json"])},
    {"arm": "round_1", **edit("two", 1, False, rate=1e-4)},
    {"arm": "round_1", **edit("three", 0, True, epochs=20)},
    {"arm": "round_1", **refused(edit("three", 1, True), "not json")},
    *({"arm": "oracle", **edit(t, 0, True)} for t in ("one", "two", "three")),
]
EDITS = [
    edit("old", 0, True, round=1, kept=True, rate=1e-4),
    edit("old", 1, False, round=1, kept=False, redrawn=["epochs"], mesh=()),
    refused(edit("old", 2, False), "over budget", round=1, kept=False),
    refused(edit("older", 0, False), "learning rate", round=1, kept=False),
    edit("older", 1, False, round=1, kept=False, output_only=False),
]


def row(name, mean, counts=None, **changes):
    """A row of the ladder; `counts`: edits, drawn, trained and their mean."""
    counts = counts or (0, 0, 0, None)
    names = ("edits", "drawn", "trained", "trained_mean")
    return {
        "name": name,
        "mean": mean,
        "se": 0.25,
        "low": 0.0,
        "high": 0.75,
        "n": 3,
        "empty_rate": 0.0,
        "refused": {},
        **dict(zip(names, counts, strict=True)),
        **changes,
    }


SUMMARY = {
    "ladder": [
        row("in_context", 1 / 3),
        row("self_edits", 0.0, (3, 3, 2, 0.0), refused={"not json": 1}),
        row(
            "round_1",
            0.5,
            (6, 8, 4, 0.75),
            refused={"epochs": 1, "not json": 2, "over budget": 1},
        ),
        row("oracle", 1.0, (3, 3, 3, 1.0), low=None, high=None),
    ],
    "paired": [{"a": "round_1", "b": "in_context", "diff": 0.1, "se": 0.2, "z": 0.5}],
    "items": [
        {
            "item": f"task {name}",
            "in_context": float(name == "one"),
            "self_edits": 0.0,
            "round_1": 0.5,
            "oracle": 1.0,
        }
        for name in ("one", "two", "three")
    ],
    "rounds": [{"round": 1, "sampled_mean": 1 / 3, "best_mean": 0.5, "kept_mean": 1.0}],
    "adapters": 12,
    "seconds": {"adapt": 6.0},
    "tokens": 1000,
    "config_hash": "0123456789ab",
}


def build(path, *, summary=None, edits=EDITS, heldout=HELDOUT, items=ITEMS):
    """Writes the files into `path`, those that are not None, and the page."""
    records.open_workdir(path, {"name": "grids"})
    records.write_json(path / "summary.json", SUMMARY if summary is None else summary)
    for name, rows in (("edits", edits), ("heldout", heldout), ("items", items)):
        if rows is not None:
            records.write_jsonl(path / f"{name}.jsonl", rows)
    return html_page.write_html(path)
