"""The work of the few-shot round of configs/arc.py, as lengths.

    .venv/bin/python benchmarks/arc_workload.py               # what it amounts to
    .venv/bin/python benchmarks/arc_workload.py --write SEAL  # makes the file anew

arc_workload.json holds numbers and the tasks' public ids only. SEAL is a copy of the
authors' repository (or any folder with few-shot/data in it); from its tasks the program
itself makes the prompts, the views and the datasets of all sixteen settings of the
switches, and what it would hand to the tokenizer is counted here instead.

Lengths are estimates: `count` cuts a text as Llama 3's tokenizer does before it merges,
and takes each piece for one token, since the tokenizer itself does not come with this
repository. Grids are counted nearly exactly; a word or a sign may take more tokens than
one, which makes the prompt for a self-edit and the instruction a little longer.
"""

import argparse
import collections
import dataclasses
import itertools
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common

FILE = Path(__file__).resolve().parent / "arc_workload.json"
FOLDER = "few-shot/data"
FILES = {
    "train": "arc-agi_training_challenges_filtered_1B_training_set.json",
    "heldout": "arc-agi_evaluation_challenges_filtered_1B_eval_set.json",
}
CONFIG = common.ROOT / "configs" / "arc.py"

# Llama 3's pattern, for texts whose letters are those of English and which have no
# apostrophes. A special token is one piece.
_PIECE = re.compile(
    r"<\|\w+\|>|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]{1,3}| ?[^\sA-Za-z0-9]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPECIAL = re.compile(r"(<\|\w+\|>)")

type Pairs = tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Task:
    """One few-shot task.

    Attributes:
      id: its public one.
      propose_prompt: tokens of the prompt that asks for a self-edit.
      datasets: by switches (`key`), tokens of prompt and answer of each training line.
      views: tokens of prompt and right answer of each view of each test.
    """

    id: str
    propose_prompt: int
    datasets: Mapping[str, Pairs]
    views: Pairs


@dataclasses.dataclass(frozen=True)
class Workload:
    """The tasks of the round, and those held out."""

    train: tuple[Task, ...]
    heldout: tuple[Task, ...]


def key(switches: Sequence[bool]) -> str:
    """Four switches as the file names them: "1000" is the basic family alone."""
    return "".join(str(int(mesh)) for mesh in switches)


KEYS = tuple(map(key, itertools.product((False, True), repeat=4)))


def count(text: str) -> int:
    """The estimate: pieces of Llama 3's pattern, each taken for a token."""
    parts = (part for part in _SPECIAL.split(text) if part)
    return sum(
        1 if _SPECIAL.fullmatch(part) else len(_PIECE.findall(part)) for part in parts
    )


def load(path: Path = FILE) -> Workload:
    """The committed lengths.

    Raises:
      OSError: `path` cannot be read.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    return Workload(*(parse(found[name]) for name in FILES))


def parse(tasks: Sequence[Mapping[str, Any]]) -> tuple[Task, ...]:
    """The tasks in a file's list; a pair that occurs several times is listed once."""

    def pairs(triples: Sequence[Sequence[int]]) -> Pairs:
        return tuple((p, a) for p, a, times in triples for _ in range(times))

    return tuple(
        Task(
            id=task["id"],
            propose_prompt=task["propose_prompt"],
            datasets={name: pairs(task["datasets"][name]) for name in KEYS},
            views=pairs(task["views"]),
        )
        for task in tasks
    )


def describe(workload: Workload) -> dict[str, Any]:
    """What it amounts to: of each set, and of the datasets with everything on."""
    made = {}
    for name in FILES:
        tasks: tuple[Task, ...] = getattr(workload, name)
        full = [[sum(pair) for pair in task.datasets[KEYS[-1]]] for task in tasks]
        lines = [n for lengths in full for n in lengths]
        views = [pair for task in tasks for pair in task.views]
        made[name] = {
            "tasks": len(tasks),
            "propose_prompt_tokens": sum(task.propose_prompt for task in tasks),
            "lines": len(lines),
            "line_tokens": sum(lines),
            "line_tokens_max": max(lines),
            "padded_line_tokens": sum(max(own) * len(own) for own in full),
            "views": len(views),
            "view_prompt_tokens": sum(prompt for prompt, _ in views),
            "view_prompt_tokens_max": max(prompt for prompt, _ in views),
            "answer_tokens": sum(answer for _, answer in views),
            "answer_tokens_max": max(answer for _, answer in views),
        }
    return made


# Making the file


class _Counter:
    """In a policy's place: as many ids as the estimate has tokens."""

    def encode(self, text: str) -> range:
        return range(count(text))

    sequence = encode


def measure(seal: Path) -> dict[str, list[dict[str, Any]]]:
    """The file's lists of tasks, from the public tasks under `seal`.

    Raises:
      ValueError: a task of configs/arc.py is not there.
      OSError: a file cannot be read.
    """
    # Here, so that the lengths can be read without seal_jax at hand.
    import runpy

    from seal_jax.rounds.few_shot_settings import FewShot
    from seal_jax.runtime import config_rules
    from seal_jax.tasks import few_shot

    values = runpy.run_path(str(CONFIG))["get_config"]()
    for name, file in FILES.items():
        values.task[name] = str(seal / FOLDER / file)
    exp = config_rules.build(FewShot, values.to_dict())
    # Nothing but `encode` is asked of it.
    counter: Any = _Counter()
    task = few_shot.FewShotTask(exp, counter)
    rounds, heldout = few_shot.load(exp)
    return {
        "train": [_measure_task(task, item) for item in rounds[0]],
        "heldout": [_measure_task(task, item) for item in heldout],
    }


def _measure_task(task: Any, item: Any) -> dict[str, Any]:
    from seal_jax.rounds import trials
    from seal_jax.tasks.arc import examples as arc_data
    from seal_jax.tasks.arc import self_edit as arc_edit

    datasets = {}
    for name in KEYS:
        switches = arc_data.Switches(*(mesh == "1" for mesh in name))
        edit = arc_edit.SelfEdit(switches, True, 1e-4, 1)
        job = task.job(item, trials.Edit(0, 0, "", edit.json()), ())
        datasets[name] = _triples(
            (given, len(line) - given)
            for line, given in zip(job.lines, job.given, strict=True)
        )
    answered = zip(task.prompts(item), task.gold(item), strict=True)
    return {
        "id": item.id,
        "propose_prompt": count(task.propose_prompt(item)),
        "views": _triples((count(prompt), count(gold)) for prompt, gold in answered),
        "datasets": datasets,
    }


def _triples(pairs: Any) -> list[list[int]]:
    times = collections.Counter(pairs)
    return [[*pair, times[pair]] for pair in sorted(times)]


def to_text(tasks: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The file's content: a head that explains it, then one task per line."""
    head = {
        "what": "token counts of the few-shot round; see arc_workload.py beside it",
        "source": [f"{FOLDER}/{file}" for file in FILES.values()],
        "estimate": "pieces of Llama 3's pre-tokeniser, a token each",
        "pairs": "[tokens of the prompt, tokens of the answer, how many of these]",
        "datasets": "by switches: basic, size, chain, repeat; after the cap",
    }
    parts = [json.dumps(head)[:-1]]
    for name in FILES:
        rows = ",\n".join(json.dumps(t, separators=(",", ":")) for t in tasks[name])
        parts.append(f'"{name}": [\n{rows}\n]')
    return ", ".join(parts) + "}\n"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/arc_workload.py",
        description="The lengths that benchmarks of the few-shot round run on.",
    )
    parser.add_argument(
        "--write", metavar="SEAL", help="make arc_workload.json from SEAL's data"
    )
    args = parser.parse_args(argv)
    try:
        if args.write is not None:
            FILE.write_text(to_text(measure(Path(args.write))), encoding="utf-8")
            print(f"written: {FILE}", file=sys.stderr)
        print(json.dumps(describe(load())))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
