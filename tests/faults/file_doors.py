"""The doors through which files come in: good files for each, and what reads them."""

import dataclasses
import functools
import json
import pathlib
import shutil
from collections.abc import Callable

import few_shot_run
import golden_models
import jax.numpy as jnp
import numpy as np
import pyarrow
import report_run
from pyarrow import parquet

from seal_jax.commands import given_texts
from seal_jax.experiment import one_run, workdirs
from seal_jax.generation import policies
from seal_jax.generation.settings import ModelSource
from seal_jax.models import hf_weights, peft
from seal_jax.pooled import texts as pooled_texts
from seal_jax.report import console, html_page
from seal_jax.report.commands import agreement, continual, novelty, reliability, select
from seal_jax.rewards import judge
from seal_jax.runtime import checkpoint, metrics, records
from seal_jax.runtime.journal import Journal
from seal_jax.tasks import columns, self_edit, squad
from seal_jax.tasks.arc import puzzles
from seal_jax.tasks.arc import text as arc_text
from seal_jax.tasks.settings import ColumnsConfig


@dataclasses.dataclass(frozen=True)
class Door:
    """`files`: patterns of what may be damaged; `open` returns an exit status or None.

    `weight`: of all cases, relative to other doors'.
    """

    name: str
    write: Callable[[pathlib.Path], object]
    files: tuple[str, ...]
    open: Callable[[pathlib.Path], int | None]
    weight: int = 1


def _json(path: pathlib.Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


# Models


def _model(folder: pathlib.Path, name: str) -> None:
    shutil.copytree(golden_models.GOLDEN / name / "model", folder, dirs_exist_ok=True)


def _sharded(folder: pathlib.Path) -> None:
    _model(folder, "qwen25")
    cfg, params = golden_models.load("qwen25")
    (folder / hf_weights.SINGLE).unlink()
    hf_weights.save_params(folder, cfg, params, max_shard_bytes=60_000)


def _open_model(folder: pathlib.Path) -> None:
    source = ModelSource(str(folder), False, "float32", "auto", "auto")
    policy = policies.load(source, policies.describe(source), seed=0)
    assert all(0 <= i < policy.arch.vocab for i in policy.encode("Orsel mill."))


def _open_adapter(folder: pathlib.Path) -> None:
    delta, alpha = peft.load(folder, golden_models.CONFIGS["qwen2"])
    assert 0 < alpha < np.inf
    for ab in (ab for layer in delta.values() for ab in layer.values()):
        assert all(np.isfinite(np.asarray(x)).all() for x in ab.values())


def _adapter(folder: pathlib.Path) -> None:
    source = golden_models.GOLDEN / "qwen2" / "peft_default"
    shutil.copytree(source, folder, dirs_exist_ok=True)


# Data and prompts


def _passages(folder: pathlib.Path) -> None:
    question = {"question": "Since when?", "answer": "1204"}
    records = [
        {"title": f"Karsk {i}", "context": f"It is {i}.", "questions": [question] * 2}
        for i in range(3)
    ]
    _json(folder / "passages.json", records)


def _open_passages(folder: pathlib.Path) -> None:
    found = squad.load(folder / "passages.json", split="", seed=1)
    for passage in found:
        for part in (passage.title, passage.text):
            part.encode()
        for asked in passage.questions:
            assert asked.question.strip() and asked.answer.strip()


def _tables(folder: pathlib.Path) -> None:
    rows = [{"text": f"It is {i}, é.", "q": "Since when?", "a": i} for i in range(3)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "t.jsonl").write_text(lines, encoding="utf-8")
    cells = "".join(f'"{row["text"]}",{row["q"]},{row["a"]}\n' for row in rows)
    (folder / "t.csv").write_text(f"text,q,a\n{cells}", encoding="utf-8")
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "t.parquet")


def _open_tables(folder: pathlib.Path) -> None:
    named = ColumnsConfig("text", "", "", "q", "a", "")
    for kind in ("jsonl", "csv", "parquet"):
        for passage in columns.load(
            str(folder / f"t.{kind}"), columns=named, split="", seed=1
        ):
            passage.text.encode()
            assert all(q.answer.strip() for q in passage.questions)


def _completions(folder: pathlib.Path) -> None:
    _passages(folder)
    records = json.loads((folder / "passages.json").read_text())
    texts = [{**record, "completions": ["a", " ", "b"]} for record in records]
    _json(folder / "completions.json", texts)


def _open_completions(folder: pathlib.Path) -> None:
    passages = squad.load(folder / "passages.json", split="", seed=1)
    edits = pooled_texts.read_edits(folder / "completions.json", passages, count=2)
    assert all(isinstance(edit.text, str) for edit in edits)


_GRID = [[0, 1], [2, 3]]
_PAIR = {"input": _GRID, "output": _GRID}


def _tasks(folder: pathlib.Path) -> None:
    entry = {"train": [_PAIR, _PAIR], "test": [{"input": _GRID}]}
    _json(folder / "a_challenges.json", {"t1": entry, "t2": entry})
    _json(folder / "a_solutions.json", {"t1": [_GRID], "t2": [_GRID]})


def _open_tasks(folder: pathlib.Path) -> None:
    puzzles.load(folder / "a_challenges.json", split="")


def _task_folder(folder: pathlib.Path) -> None:
    for name in ("t1", "t2"):
        _json(folder / f"{name}.json", {"train": [_PAIR], "test": [_PAIR]})


def _open_task_folder(folder: pathlib.Path) -> None:
    puzzles.load(folder, split="")


def _prompts(folder: pathlib.Path) -> None:
    names = {
        "propose": "Ask: {title} {passage}\n",
        "answer": "{title}? {question}\n",
        "grids": "{demonstrations} now\n",
        "instruction": "Do.\n",
    }
    for name, text in names.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def _open_prompts(folder: pathlib.Path) -> None:
    self_edit.load_template(str(folder / "propose.txt"), "propose").encode()
    self_edit.load_template(str(folder / "answer.txt"), "answer").encode()
    arc_text.load_propose(str(folder / "grids.txt"))
    arc_text.load_instruction(str(folder / "instruction.txt"))


# Results of the reference


def _ranking(folder: pathlib.Path) -> None:
    report_run.ranking_file(folder / "rank.json")


def _answers(folder: pathlib.Path) -> None:
    report_run.ranking_file(folder / "rank.json")
    report_run.edits_file(folder / "edits.json")


_COMMANDS: dict[str, Callable[[str, str], int]] = {
    "report": lambda path, _: console.main([path]),
    "page": lambda path, out: console.main([path, "--html", f"{out}.html"]),
    "novelty": lambda path, _: novelty.main([path]),
    "reliability": lambda path, _: reliability.main([path, "--draws", "2"]),
    "agreement": lambda path, _: agreement.main([path]),
    "select": lambda path, out: select.main([path, "--out", f"{out}.jsonl"]),
    "continual": lambda path, _: continual.main([path]),
}


def _commands(name: str, commands: str) -> Callable[[pathlib.Path], int | None]:
    """One of the commands that read such a file, by what is there."""
    mains = [_COMMANDS[command] for command in commands.split()]

    def opened(folder: pathlib.Path) -> int | None:
        # So that the same damage meets the same command.
        sizes = [p.stat().st_size for p in folder.rglob("*") if p.is_file()]
        return mains[sum(sizes) % len(mains)](str(folder / name), str(folder / "out"))

    return opened


def _continual(folder: pathlib.Path) -> None:
    report_run.continual_folder(folder / "runs")


def _open_continual(folder: pathlib.Path) -> int | None:
    return continual.main([str(folder / "runs")]) or console.main(
        [str(folder / "runs")]
    )


# Workdirs

_CONFIG = {"seed": 0, "scale": {"rounds": 3}}


def _workdir(folder: pathlib.Path) -> None:
    run = folder / "run"
    report_run.rounds_run(run)
    records.write_json(run / "layout.json", {"layout": records.LAYOUT})
    records.write_json(run / "config.json", _CONFIG)
    # Times of as many digits: by the files' sizes a command is chosen.
    with metrics.Metrics(run, clock=lambda: 1_700_000_000.5) as log:
        for step in range(3):
            log.log(step, {"imitate/loss": 1.0 / (step + 1), "x": 2.0})
    shutil.rmtree(run / "tensorboard")


def _few_shot(folder: pathlib.Path) -> None:
    few_shot_run.build(folder / "run")


def _continual_workdir(folder: pathlib.Path) -> None:
    report_run.continual_run(folder / "run", "merge", "gate")


def _journal(folder: pathlib.Path) -> None:
    _workdir(folder)
    with Journal(folder / "run" / "journal.jsonl") as journal:
        journal.put("sizes", {"plan": {"slots": 2}, "pool": 4, "shards": 1})
        for r in range(3):
            journal.put(f"round_{r}/adapt/0", {"seconds": 0.5, "trials": [[1.0, None]]})


def _resume(folder: pathlib.Path) -> None:
    """What the same command does first in a workdir that is there."""
    run = folder / "run"
    with records.lock(run):
        records.open_workdir(run, _CONFIG)
        workdirs.finished_summary(run)
        journal = Journal(run / "journal.jsonl", summed=True)
        with journal, metrics.Metrics(run):
            for key in journal.keys():  # noqa: SIM118
                journal.get(key)
            one_run.costs(journal)
        html_page.write_html(run)
    for made in ("report.html", ".lock"):
        (run / made).unlink()
    shutil.rmtree(run / "tensorboard")


@functools.cache
def _saved() -> dict:
    return {"w": jnp.arange(64, dtype=jnp.float32), "n": jnp.int32(3)}


def _checkpoint(folder: pathlib.Path) -> None:
    checkpoint.save(folder / "c", 1, _saved(), {"loss": 0.5, "texts": ["a", "b"]})


def _open_checkpoint(folder: pathlib.Path) -> None:
    assert checkpoint.latest(folder / "c") == 1
    tree, meta = checkpoint.restore(folder / "c", 1, _saved())
    for name, leaf in _saved().items():
        np.testing.assert_array_equal(tree[name], leaf)
    assert meta == {"loss": 0.5, "texts": ["a", "b"]}


_JUDGE = judge.JudgeConfig("http://localhost:1/v1", "m", 1, 0, 1.0)


def _verdicts(folder: pathlib.Path) -> None:
    rows = [{"key": f"{i:064x}", "correct": bool(i)} for i in range(2)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "judge.jsonl").write_text(text)


def _open_verdicts(folder: pathlib.Path) -> None:
    judge.grade([("q", "g", " ")], _JUDGE, folder / "judge.jsonl")


_MODEL_FILES = ("config.json", "generation_config.json", "tokenizer.json")
_MODEL_FILES = (*_MODEL_FILES, "tokenizer_config.json", "model*")
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")

# Texts of the command line


def _texts(folder: pathlib.Path) -> None:
    (folder / "a.txt").write_text("Ada bakes rye.\nShe is old.\n", encoding="utf-8")
    rows = ["one", {"text": "two"}, {"prompt": "Who?", "completion": "Ada"}]
    rows.append({"lines": ["three", {"prompt": "Q", "completion": "A"}]})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "b.jsonl").write_text(lines, encoding="utf-8")


def _open_texts(folder: pathlib.Path) -> None:
    given_texts.named([str(folder)])
    given_texts.named([str(folder)], by_line=True)


_ALL = (
    *(
        Door(
            f"model {n}",
            functools.partial(_model, name=n),
            _MODEL_FILES,
            _open_model,
            5,
        )
        for n in ("qwen2", "llama", "qwen3")
    ),
    Door("sharded model", _sharded, ("*.json", "model*"), _open_model, 3),
    Door("adapter", _adapter, _ADAPTER_FILES, _open_adapter, 5),
    Door("passages", _passages, ("*.json",), _open_passages, 5),
    Door("tables", _tables, ("t.*",), _open_tables, 5),
    Door("completions", _completions, ("completions.json",), _open_completions, 3),
    Door("tasks in a file", _tasks, ("*.json",), _open_tasks, 4),
    Door("tasks in a folder", _task_folder, ("*.json",), _open_task_folder, 3),
    Door("texts to adapt to", _texts, ("*.txt", "*.jsonl"), _open_texts, 3),
    Door("prompts", _prompts, ("*.txt",), _open_prompts, 3),
    Door(
        "ranking",
        _ranking,
        ("rank.json",),
        _commands("rank.json", "report page novelty reliability agreement select"),
        8,
    ),
    Door(
        "edits",
        _answers,
        ("edits.json",),
        _commands("edits.json", "report page novelty"),
        4,
    ),
    Door("continual results", _continual, ("**/*.json",), _open_continual, 4),
    Door(
        "workdir",
        _workdir,
        ("run/*.json*",),
        _commands("run", "report page novelty reliability agreement"),
        8,
    ),
    Door(
        "few-shot workdir",
        _few_shot,
        ("run/*.json*",),
        _commands("run", "report page"),
        6,
    ),
    Door(
        "continual workdir",
        _continual_workdir,
        ("run/*.json",),
        _commands("run", "report page"),
        4,
    ),
    Door("begun workdir", _journal, ("run/*.json*",), _resume, 8),
    Door("checkpoint", _checkpoint, ("c/1/**/*",), _open_checkpoint, 1),
    Door("verdicts", _verdicts, ("*.jsonl",), _open_verdicts, 2),
)
DOORS = {door.name: door for door in _ALL}
