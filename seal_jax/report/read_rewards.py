"""All rewards of self-edits, in a workdir or a ranking result of the SEAL reference."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from seal_jax.analysis import ngrams, stats
from seal_jax.analysis.agreement import TRUE, AllRewards, Seeds
from seal_jax.report import read_seeds, reference, run_view
from seal_jax.report.read_seeds import Values
from seal_jax.rewards import names as reward_names
from seal_jax.rewards import rubric
from seal_jax.runtime import files, formatting
from seal_jax.tasks import self_edit

# What a self-edit's text gives: name and f(passage, text).
TEXT_REWARDS: dict[str, Callable[[str, str], float | None]] = {
    "rubric by rules": lambda passage, text: rubric.by_rules(
        passage, self_edit.split(text, rule="lines", quirks="fixed")
    ),
    "words": lambda passage, text: float(len(ngrams.words(text))),
    "novel trigrams": ngrams.novel_share,
}


@run_view.bounded
def read(path: str | Path) -> list[AllRewards]:
    """The rewards of each round of a workdir, or in a SEAL ranking result.

    Raises:
      ValueError: neither of the two, or an edit without grades.
      OSError: it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or directory; give {read_seeds.WANTED}")
    if not path.is_dir():
        return [AllRewards(path.stem, _gather(_ranking(path)))]
    rounds: dict[Any, dict[Any, list[dict[str, Values]]]] = {}
    seeds: dict[Any, int] = {}
    objectives: dict[Any, str] = {}
    sifted: set[Any] = set()
    for line, row in enumerate(run_view.read_edits(path), start=1):
        try:
            item = row["passage_id"] if "passage_id" in row else row["task_id"]
            rewards = _rewards(row)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}: row {line} of {run_view.EDITS_NAME} lacks its passage_id, "
                f"or measured {TRUE} and answers ({error!r:.160}); give a workdir that "
                "seal_jax wrote"
            ) from None
        number = row.get("round", formatting.MISSING)
        count = len(rewards[TRUE])
        if row.get("out") and count:
            seeds[number] = min(count, seeds.get(number, count))
        if row.get("aside"):
            sifted.add(number)
        objectives[number] = str(row.get("objective", "mean"))
        passages = rounds.setdefault(number, {})
        passages.setdefault(item, []).append(rewards)
    if not rounds:
        raise ValueError(f"{path}: no {run_view.EDITS_NAME} with edits; give a workdir")
    return [
        AllRewards(
            f"{path.name} round {number}",
            _gather(list(passages.values()), seeds.get(number)),
            seeds.get(number),
            objectives[number],
            number in sifted,
        )
        for number, passages in rounds.items()
    ]


def _rewards(row: dict[str, Any]) -> dict[str, Values]:
    """{name: values} of one row of edits.jsonl, with the rewards of its text."""
    rewards = {
        name: [_measured(v) for v in (value if isinstance(value, list) else [value])]
        for name, value in (row.get("measured") or {}).items()
    }
    if TRUE not in rewards:
        rewards[TRUE] = [_share(answers) for answers in row["answers"]]
    if isinstance(row.get("passage"), str) and isinstance(row.get("text"), str):
        rewards |= _of_text(row["passage"], row["text"])
    return rewards


def _measured(value: Any) -> float | None:
    return reward_names.measured(formatting.measured(value))


def _share(answers: list[dict[str, Any]]) -> float | None:
    """Share right; an adapter without answers failed, and has none right."""
    return stats.mean(a["score"] for a in answers) if answers else 0.0


def _of_text(passage: str, text: str) -> dict[str, Values]:
    return {name: [reward(passage, text)] for name, reward in TEXT_REWARDS.items()}


def _ranking(path: Path) -> list[list[dict[str, Values]]]:
    value = files.read_json(path)
    if not reference.is_results(value):
        raise ValueError(
            f"{path}: must be {read_seeds.WANTED}; give a file from "
            "results/query_server/train"
        )
    try:
        return [
            [
                {TRUE: _accuracies(c), **_of_text(article["context"], c["text"])}
                for c in article["completions"]
            ]
            for article in value["articles"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: an article lacks what a SEAL result has ({error!r:.160}); "
            "give a file from results/query_server/train"
        ) from None


def _accuracies(completion: dict[str, Any]) -> Values:
    """At each seed, or the stated mean where a file lists no answers."""
    if completion["questions"]:
        return [*reference.accuracies(completion["questions"], "adapter_correct")]
    return [formatting.measured(completion["stats"]["adapter_mean"])]


def _gather(
    passages: list[list[dict[str, Values]]], seeds: int | None = None
) -> dict[str, Seeds]:
    """By name; of each edit the first `seeds`, None: all."""
    names = {name: None for edits in passages for edit in edits for name in edit}
    return {
        name: [[edit.get(name, [])[:seeds] for edit in edits] for edits in passages]
        for name in names
    }
