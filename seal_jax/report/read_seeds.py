"""The rewards of each seed, in a workdir or a ranking result of the SEAL reference."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seal_jax.analysis import reliability
from seal_jax.analysis.reliability import SeedRewards
from seal_jax.report import reference, run_view
from seal_jax.rewards import names as reward_names
from seal_jax.runtime import files, formatting

WANTED = "a workdir or a SEAL ranking result"

type Values = list[float | None]


@run_view.bounded
def read(path: str | Path) -> list[SeedRewards]:
    """The rewards in a SEAL ranking result, or of each round of a workdir.

    A workdir whose reward is not the share of right answers gives that as rewards too,
    under a name that ends in "right answers"; so it does with whatever else was
    measured at every seed (`select.compare`), each under its own name. Of a round that
    was a race over seeds only those count that all edits had: the later ones were given
    to edits that had been lucky.

    Raises:
      ValueError: neither of the two, or no rewards in it.
      OSError: it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or directory; give {WANTED}")
    if not path.is_dir():
        rewards = _ranking(path)
        return [SeedRewards(path.stem, rewards, rewards)]
    rounds: dict[object, dict[object, list[tuple[Values, Values, dict]]]] = {}
    seeds: dict[object, int] = {}
    for row in run_view.read_edits(path):
        item = row.get("passage_id", row.get("task_id"))
        if item is None or not isinstance(row.get("rewards"), list):
            raise ValueError(
                f"{path}: a row of {run_view.EDITS_NAME} lacks its passage_id or "
                "rewards; give a workdir that seal_jax wrote"
            )
        rewards = [
            reward_names.measured(formatting.measured(r)) for r in row["rewards"]
        ]
        number = row.get("round", formatting.MISSING)
        if row.get("out") and rewards:
            seeds[number] = min(len(rewards), seeds.get(number, len(rewards)))
        passages = rounds.setdefault(number, {})
        passages.setdefault(item, []).append((rewards, _right(row), _others(row)))
    if not rounds:
        raise ValueError(f"{path}: no {run_view.EDITS_NAME} with edits; give a workdir")
    return [
        measured
        for number, passages in rounds.items()
        for measured in _of_round(
            f"{path.name} round {number}", [*passages.values()], seeds.get(number)
        )
    ]


def _of_round(
    name: str,
    passages: Sequence[Sequence[tuple[Values, Values, Mapping[str, Values]]]],
    raced: int | None,
) -> list[SeedRewards]:
    """The rewards of one round, then whatever else its trainings measured."""
    rewards = [[r[:raced] for r, *_ in edits] for edits in passages]
    right = [[s[:raced] for _, s, _ in edits] for edits in passages]
    has_answers = reliability.have_same_seeds(right, rewards)
    judge = right if has_answers else rewards
    results = [SeedRewards(name, rewards, judge, raced)]
    if has_answers and not reliability.are_equal(right, rewards):
        results.append(SeedRewards(f"{name}, right answers", right, right, raced))
    for key in passages[0][0][2]:
        values = [
            [others.get(key, [])[:raced] for *_, others in edits] for edits in passages
        ]
        # One that takes no adapter has one value, however many seeds there are.
        if reliability.have_same_seeds(values, rewards) and not reliability.are_equal(
            values, rewards
        ):
            results.append(SeedRewards(f"{name}, {key}", values, judge, raced))
    return results


def _others(row: dict[str, Any]) -> dict[str, Values]:
    """What a row measured besides right answers, by name."""
    measured = row.get("measured")
    if not isinstance(measured, dict):
        return {}
    return {
        key: [reward_names.measured(formatting.measured(v)) for v in values]
        for key, values in measured.items()
        if key != "grade" and isinstance(values, list)
    }


def _right(row: dict[str, Any]) -> Values:
    """Share of right answers at each seed of a row; [] where not listed per question.

    A seed without answers failed, and has none right."""
    try:
        scores = [[q["score"] for q in answers] for answers in row["answers"]]
    except (KeyError, TypeError):
        return []
    return [_share(seed) if seed else 0.0 for seed in scores]


def _share(scores: Sequence[float | None]) -> float | None:
    graded = [score for score in scores if score is not None]
    return math.fsum(graded) / len(graded) if graded else None


def _ranking(path: Path) -> list[list[list[float]]]:
    value = files.read_json(path)
    if not reference.is_results(value):
        raise ValueError(
            f"{path}: must be {WANTED}; give a file from results/query_server/train"
        )
    try:
        rewards = [
            [
                reference.accuracies(c["questions"], "adapter_correct")
                for c in completions
            ]
            for completions in (article["completions"] for article in value["articles"])
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: an article lacks what a SEAL result has ({error!r}); give a file "
            "from results/query_server/train"
        ) from None
    if not all(seeds for passage in rewards for seeds in passage):
        raise ValueError(
            f"{path}: an edit lists no answers, so the rewards of its seeds are not "
            "known; give a file that lists its questions"
        )
    return rewards
