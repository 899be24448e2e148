"""How full the decoding rows are, from the lengths of texts alone: a simulation.

    python benchmarks/occupancy.py [--out]

The queue of `seal_jax/generation/schedule.py` itself decides what is read and which row
a request takes; in the device's place stands `Simulated`, which knows how long each
text becomes and counts. The lengths are those of workload.json and arc_workload.json,
the settings those of configs/squad.py and configs/arc.py.

Everything here is modelled: nothing is computed, and no second is measured. A row that
ends in the middle of a step's group waits until the group is refilled, as on a device.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import arc_task
import arc_workload
import common
import numpy as np
import round_task
import workload

from seal_jax.generation import policies, schedule, side_by_side
from seal_jax.generation.settings import Decoding
from seal_jax.runtime import command_line, formatting

# What is simulated: (request, tokens of its text), by name.
type Wanted = Sequence[tuple[side_by_side.Request, int]]


class Simulated:
    """A device that computes nothing: every text ends after its known length.

    Attributes:
      read_tokens, readings: tokens of prompts that were read, and how often.
      admissions: how often rows were refilled.
      steps: of decoding.
      row_steps, used_row_steps: rows that were computed, summed over the steps; those
        of them whose text went on.
      page_steps, used_page_steps: the same of copies of adapters.
      programs: (rows, pages) that decoding was compiled for.
    """

    def __init__(self, lengths: Sequence[int], sizes: schedule.Sizes, *, most: int):
        self._lengths, self._most = lengths, most
        self._left = np.zeros(sizes.rows, int)  # steps until a row has ended
        self._members = np.zeros((0, 1), int)
        self._pages = sizes.pages
        self.read_tokens = self.readings = self.admissions = self.steps = 0
        self.row_steps = self.used_row_steps = 0
        self.page_steps = self.used_page_steps = 0
        self.programs = {(sizes.rows, sizes.pages)}
        self.collected: list[int] = []

    def read(
        self, prompts: Sequence[side_by_side.Prompt], spans: Sequence[side_by_side.Span]
    ) -> None:
        self.readings += 1
        self.read_tokens += sum(len(prompt.ids) for prompt in prompts)

    def admit(self, entries: Sequence[schedule.Entry], members: np.ndarray) -> None:
        self.admissions += 1
        for entry in entries:
            tokens = self._lengths[entry.request]
            # The first token is drawn here, and what ends a text takes a draw too.
            self._left[entry.place.row] = min(tokens, self._most - 1)
        self._set(members)

    def _set(self, members: np.ndarray) -> None:
        shards, _, _ = members.shape
        own = len(self._left) // shards
        rows = members + own * np.arange(shards)[:, None, None]
        # What is none of the rows is counted as one that has ended.
        self._members = np.where(members < own, rows, len(self._left)).reshape(
            -1, members.shape[-1]
        )

    def decode(self, until: int, most: int) -> tuple[int, np.ndarray]:
        steps = int(min(np.sort(self._left)[until - 1], most))
        self.steps += steps
        self.row_steps += steps * len(self._left)
        self.used_row_steps += int(np.minimum(self._left, steps).sum())
        if self._pages:
            left = np.append(self._left, 0)[self._members].max(1)
            self.page_steps += steps * self._pages
            self.used_page_steps += int(np.minimum(left, steps).sum())
        self._left = np.maximum(self._left - steps, 0)
        return steps, self._left == 0

    def collect(self, ended: Mapping[int, int]) -> None:
        self.collected += ended.values()

    def move(
        self, from_row: Sequence[int], from_page: Sequence[int], members: np.ndarray
    ) -> None:
        self._left, self._pages = self._left[list(from_row)], len(from_page)
        self.programs.add((len(from_row), len(from_page)))
        self._set(members)


def simulate(
    wanted: Wanted, decoding: Decoding, *, adapters: int, shards: int = 1
) -> dict[str, Any]:
    """What continuing the requests comes to.

    Args:
      wanted: requests, and tokens of each one's text.
      decoding: the settings.
      adapters: in the stack; 0 for the base alone.
      shards: devices that share the rows.

    Raises:
      ValueError: there is nothing to continue.
    """
    requests, lengths = [r for r, _ in wanted], [n for _, n in wanted]
    prompts = side_by_side.distinct(requests, adapters)
    if not prompts:
        raise ValueError("there are no prompts; a request needs one at least")
    sizes = schedule.sizes(
        prompts,
        adapters=adapters,
        batch=decoding.batch,
        per_page=policies.PER_PAGE,
        prompt_multiple=decoding.prompt_multiple,
        shards=shards,
    )
    device = Simulated(lengths, sizes, most=decoding.max_tokens)
    steps = schedule.run(prompts, device, sizes, most=decoding.max_tokens)
    computed = device.readings * sizes.reading * sizes.width
    return {
        "texts": len(requests),
        "tokens": sum(lengths),
        "rows": sizes.rows,
        "steps": steps,
        "occupancy": device.used_row_steps / max(device.row_steps, 1),
        "row_steps": device.row_steps,
        "readings": device.readings,
        "prompt_tokens": device.read_tokens,
        "computed_prompt_tokens": computed,
        "prompt_efficiency": device.read_tokens / computed,
        "admissions": device.admissions,
        "copies_per_step": device.page_steps / max(steps, 1),
        "adapters_per_step": device.used_page_steps / max(steps, 1),
        "programs": sorted(device.programs, reverse=True),
    }


def squad() -> dict[str, tuple[Wanted, Decoding, int]]:
    """The published round: requests, settings, and adapters in the stack."""
    exp = round_task.settings({})
    articles = round_task.lengths(workload.load(), exp)
    # Prompts are told apart by their ids; what else these are does not matter.
    task = round_task.task(exp, articles, vocab=2**15)
    propose = [
        (side_by_side.Request(prompt), edit.tokens)
        for prompt, article in zip(task.prompts, articles, strict=True)
        for edit in article.edits
    ]
    evaluate = [
        (side_by_side.Request(prompt, number), tokens)
        for number, (p, e, s) in enumerate(task.trials)
        for prompt, tokens in zip(
            task.questions[p], articles[p].edits[e].answers[s], strict=True
        )
    ]
    base = [
        (side_by_side.Request(prompt), tokens)
        for prompts, article in zip(task.questions, articles, strict=True)
        for prompt, tokens in zip(prompts, article.base_answers, strict=True)
    ]
    return {
        "squad propose": (propose, exp.propose, 0),
        "squad evaluate": (evaluate, exp.answer, len(task.trials)),
        "squad base": (base, exp.answer, 0),
    }


def arc() -> dict[str, tuple[Wanted, Decoding, int]]:
    """The few-shot round, with configurations drawn at random."""
    exp = arc_task.settings({})
    tasks = arc_task.lengths(arc_workload.load(), exp)
    made = arc_task.make(exp, tasks, configuration="random", vocab=2**15, seed=0)
    found = {}
    for which in ("train", "heldout"):
        part: arc_task.Part = getattr(made, which)
        propose = [
            (side_by_side.Request(prompt), tokens)
            for prompt, own in zip(part.prompts, part.texts, strict=True)
            for tokens in own
        ]
        found[f"arc propose {which}"] = propose, exp.propose, 0
        asked = part.requests(part.trials)
        found[f"arc evaluate {which}"] = asked, exp.answer, len(part.trials)
    return found


def table(result: Mapping[str, Any]) -> str:
    """The result for reading."""
    rows = [
        (
            name,
            formatting.number(one["texts"], digits=0),
            formatting.number(one["tokens"], digits=0),
            str(one["rows"]),
            formatting.number(one["steps"], digits=0),
            formatting.percent(one["occupancy"]),
            formatting.percent(one["prompt_efficiency"]),
            formatting.number(one["adapters_per_step"], digits=1),
            str(len(one["programs"])),
        )
        for name, one in result["work"].items()
    ]
    head = (
        "modelled",
        "texts",
        "tokens",
        "rows",
        "steps",
        "occupied",
        "prompts",
        "adapters",
        "programs",
    )
    return formatting.ruled(head, rows)


def run() -> dict[str, Any]:
    """Simulates all there is."""
    work = {
        name: simulate(wanted, decoding, adapters=adapters)
        for name, (wanted, decoding, adapters) in {**squad(), **arc()}.items()
    }
    return {
        "benchmark": "occupancy",
        "modelled": True,
        "work": work,
        **common.stamp(device="modelled"),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = command_line.Parser(
        prog="benchmarks/occupancy.py",
        description="Simulates how full the decoding rows are; nothing is measured.",
    )
    common.add_out(parser)
    args = parser.parse_args(argv)
    return common.finish(run, args.out, name="occupancy", table=table)


if __name__ == "__main__":
    raise SystemExit(main())
