"""What the few-shot round amounts to before it runs: counts, plan and floor. Host only.

`floor.py` names the assumptions of the floor. Here besides: a token of a training line
that carries no loss needs no head, and lines that several adapters train on are read by
each.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import arc_phases
import arc_task
import common
import floor
import occupancy

from seal_jax.training import plan
from seal_jax.training.settings import PlanConfig
from seal_kernels.attention import xla


class Work(NamedTuple):
    """Training of all adapters of a set.

    Attributes:
      adapters: how many.
      steps: their optimizer steps.
      tokens: of their lines, and pads that are computed, as often as trained on.
      targets: how many of these carry loss; a line's last predicts the turn's end.
      padded_tokens: if each line were filled up to its dataset's longest.
    """

    adapters: int
    steps: int
    tokens: int
    targets: int
    padded_tokens: int


def work(jobs: Sequence[plan.Job]) -> Work:
    """The sums over some jobs."""
    sizes = [list(map(len, job.lines)) for job in jobs]
    return Work(
        adapters=len(jobs),
        steps=sum(job.total for job in jobs),
        tokens=sum(job.epochs * sum(job.positions()) for job in jobs),
        targets=sum(job.epochs * sum(job.targets()) for job in jobs),
        padded_tokens=sum(
            job.epochs * len(own) * max(own)
            for job, own in zip(jobs, sizes, strict=True)
        ),
    )


def planned(jobs: Sequence[plan.Job], cfg: PlanConfig, *, pool: int) -> dict[str, Any]:
    """What training packed takes: global steps, and how full they are.

    `attention_efficiency` is the share of the pairs of query and key whose scores are
    computed that lie in one line, the query not before the key.
    """
    steps = updates = computed_pairs = 0
    batches = [job.batches() for job in jobs]
    positions = [job.positions() for job in jobs]
    for first in range(0, len(jobs), pool):
        needs = [plan.needs(job, cfg) for job in jobs[first : first + pool]]
        for placed in plan.schedule(needs, cfg):
            steps += 1
            updates += len(placed)
            lines = []
            for place in placed:
                j = first + place.job
                for tile, i in zip(place.tiles, batches[j][place.step], strict=True):
                    size = len(jobs[j].lines[i]), positions[j][i]
                    lines.append((tile * cfg.tile, *size))
            computed_pairs += scores(lines, cfg.row_tokens)
    tokens = work(jobs).tokens
    pairs = sum(
        job.epochs * sum(len(line) * (len(line) + 1) // 2 for line in job.lines)
        for job in jobs
    )
    computed = steps * cfg.step_tokens
    return {
        "global_steps": steps,
        "computed_tokens": computed,
        "token_efficiency": tokens / computed,
        "adapters_per_step": updates / steps,
        "attention_efficiency": pairs / computed_pairs,
    }


# Queries, and keys, of the blocks that attention goes through (`attention/xla.py`).
BLOCK = xla.ELSEWHERE.block


def scores(lines: Sequence[tuple[int, int, int]], row: int) -> int:
    """Scores that are computed in a step: of each block of queries, with the blocks of
    keys from the first that one of them sees to the last.

    Args:
      lines: each one's place in the step, its tokens, and its positions.
      row: positions of a row.
    """
    block = min(BLOCK, row)
    spans: dict[tuple[int, int], tuple[int, int]] = {}
    for at, tokens, positions in lines:
        of_row, first = divmod(at, row)
        stop = first + positions
        for b in range(first // block, -(-stop // block)):
            low, high = spans.get((of_row, b), (row, 0))
            end = min(first + tokens, (b + 1) * block)
            spans[of_row, b] = min(low, first), max(high, end)
    blocks = sum(-(-high // block) - low // block for low, high in spans.values())
    return blocks * block**2


def answering(part: arc_task.Part) -> dict[str, int]:
    """What the adapters read and write; prompts are read side by side in rows."""
    wanted, decoding = part.requests(part.trials), part.exp.answer
    made = occupancy.simulate(wanted, decoding, adapters=len(part.trials))
    return {
        "prompts": len(wanted),
        "prompt_tokens": sum(len(request.prompt) for request, _ in wanted),
        "computed_prompt_tokens": made["computed_prompt_tokens"],
        "answer_tokens": sum(answer for _, answer in wanted),
    }


def least(
    shape: common.Shape, whole: arc_task.Round, machine: floor.Machine
) -> dict[str, float]:
    """The floor of every phase, in seconds."""
    exp, parts = whole.exp, floor.Parts(shape, machine)
    inner, imitated = (
        floor.Lora(wanted.rank, wanted.targets)
        for wanted in (exp.inner.lora, exp.imitate.lora)
    )
    made = dict.fromkeys(arc_phases.PHASES, 0.0)
    for which in arc_phases.SETS:
        part: arc_task.Part = getattr(whole, which)
        own, wanted = work(part.jobs()), part.requests(part.trials)
        seconds = (
            parts.continued(
                [len(prompt) for prompt in part.prompts],
                [tokens for texts in part.texts for tokens in texts],
            ),
            parts.trained(own.tokens, own.targets, own.steps, inner),
            parts.continued(
                [len(request.prompt) for request, _ in wanted],
                [answer for _, answer in wanted],
                inner,
            ),
        )
        names = (arc_phases.phase(name, which) for name in arc_phases.OF_SET)
        made |= dict(zip(names, seconds, strict=True))
    pairs = [
        (len(whole.train.prompts[task]), whole.train.texts[task][edit])
        for task, edit in arc_phases.choose(whole.train)
    ]
    steps = exp.imitate.epochs * -(-len(pairs) // exp.imitate.batch)
    made["imitate"] = parts.imitated(
        pairs, imitated, epochs=exp.imitate.epochs, steps=steps
    )
    return made


def flop(shape: common.Shape, own: Work, part: arc_task.Part) -> int:
    """Operations of a set's training, as its floor counts them."""
    wanted = part.exp.inner.lora
    adapter = floor.Lora(wanted.rank, wanted.targets)
    parts = floor.Parts(shape, floor.Machine(1.0, 1.0))
    return parts.trained_flop(own.tokens, own.targets, adapter)


def describe(
    shape: common.Shape,
    whole: arc_task.Round,
    sizes: PlanConfig,
    machine: floor.Machine,
    *,
    pool: int,
) -> dict[str, Any]:
    """Everything that is known of a round before it runs."""
    made: dict[str, Any] = {}
    for which in arc_phases.SETS:
        part: arc_task.Part = getattr(whole, which)
        jobs = part.jobs()
        own = work(jobs)
        made[which] = {
            **own._asdict(),
            **planned(jobs, sizes, pool=pool),
            "line_tokens_max": max(len(line) for job in jobs for line in job.lines),
            "proposed_tokens": sum(map(sum, part.texts)),
            **answering(part),
            "flop": flop(shape, own, part),
        }
    seconds = least(shape, whole, machine)
    made["imitated"] = len(arc_phases.choose(whole.train))
    made["floor"] = {
        "seconds": sum(seconds.values()),
        "seconds_by_phase": seconds,
        **machine._asdict(),
    }
    return made
