"""How well cheap rewards of self-edits agree with the true one.

    python -m seal_jax agreement PATH...

A PATH is a workdir (its edits.jsonl, each round on its own) or a ranking result of the
SEAL reference (results/query_server/train/*.json). The true reward is the share of
questions that an edit's adapters answer right, over all seeds. Beside it stand all
other rewards that the run measured, and those that the text alone gives: the rubric by
rules, the number of words, the share of trigrams that the passage lacks.

What matters is the choice among the edits of one passage, so passages' own levels do
not count: `pooled` is the correlation of the deviations from passages' means, all
together, `mean` and `rank` are the means over passages of their own Pearson and
Spearman correlations. `pick` is the true reward of the edit that the cheap one likes
best, and `captured` the share that it gains of what the best edit has over the mean.

The true reward is noisy, and no reward can foretell its noise. "grade, other seeds" is
how the grade of half of the seeds agrees with that of the others: what seeds know of
each other. A reward that was measured on the same adapters shares their luck with the
grade; its row "other seeds" does not. Of a round that was a race over seeds only those
count that all edits had: the later ones were given to edits that had been lucky.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from seal_jax.analysis import agreement, ngrams
from seal_jax.report import reference, run_view
from seal_jax.report.commands import novelty
from seal_jax.report.commands import select as rankings
from seal_jax.rewards import names as reward_names
from seal_jax.rewards import rubric
from seal_jax.runtime import files, formatting
from seal_jax.tasks import self_edit

TRUE = "grade"
_WANTED = "a workdir or a SEAL ranking result"

# Files

# What a self-edit's text gives: name and f(passage, text).
TEXT_REWARDS: dict[str, Callable[[str, str], float | None]] = {
    "rubric by rules": lambda passage, text: rubric.by_rules(
        passage, self_edit.split(text, rule="lines", quirks="fixed")
    ),
    "words": lambda passage, text: float(len(ngrams.words(text))),
    "novel trigrams": ngrams.novel_share,
}


@dataclasses.dataclass(frozen=True)
class Measured:
    """All rewards of the edits of one round or file: {name: [passage][edit][seed]}.

    A reward that knows of no seeds has one value; TRUE is among the names. Of a race
    `raced` is the number of seeds that all edits had, the only ones that are in.
    """

    name: str
    rewards: dict[str, agreement.Seeds]
    raced: int | None = None

    @property
    def title(self) -> str:
        """The name, and which seeds count if not all."""
        return f"{self.name}{formatting.raced(self.raced)}"

    # Kept, since the tables and each chart of a report ask for it.
    @functools.cached_property
    def agreements(self) -> dict[str, agreement.Agreement | None]:
        """`compare` of these."""
        return compare(self)


def read(path: str | Path) -> list[Measured]:
    """The rewards of each round of a workdir, or in a SEAL ranking result.

    Raises:
      ValueError: neither of the two, or an edit without grades.
      OSError: it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or directory; give {_WANTED}")
    if not path.is_dir():
        return [Measured(path.stem, _gather(_ranking(path)))]
    rounds: dict[Any, dict[Any, list[dict[str, list]]]] = {}
    seeds: dict[Any, int] = {}
    for line, row in enumerate(run_view.read_edits(path), start=1):
        try:
            item = row["passage_id"] if "passage_id" in row else row["task_id"]
            own = _rewards(row)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}: row {line} of {run_view.EDITS_NAME} lacks its passage_id, "
                f"or measured {TRUE} and answers ({error!r}); give a workdir that "
                "seal_jax wrote"
            ) from None
        number = row.get("round", formatting.MISSING)
        count = len(own[TRUE])
        if row.get("out") and count:
            seeds[number] = min(count, seeds.get(number, count))
        passages = rounds.setdefault(number, {})
        passages.setdefault(item, []).append(own)
    if not rounds:
        raise ValueError(f"{path}: no {run_view.EDITS_NAME} with edits; give a workdir")
    return [
        Measured(
            f"{path.name} round {number}",
            _gather(list(passages.values()), seeds.get(number)),
            seeds.get(number),
        )
        for number, passages in rounds.items()
    ]


def _rewards(row: dict[str, Any]) -> dict[str, list[float | None]]:
    """{name: values} of one row of edits.jsonl, with the rewards of its text."""
    found = {
        name: [_known(v) for v in (own if isinstance(own, list) else [own])]
        for name, own in (row.get("measured") or {}).items()
    }
    if TRUE not in found:
        found[TRUE] = [_share(answers) for answers in row["answers"]]
    if isinstance(row.get("passage"), str) and isinstance(row.get("text"), str):
        found |= _of_text(row["passage"], row["text"])
    return found


def _known(value: Any) -> float | None:
    return reward_names.measured(formatting.measured(value))


def _share(answers: list[dict[str, Any]]) -> float | None:
    """Share right; an adapter without answers failed, and has none right."""
    return agreement.mean(a["score"] for a in answers) if answers else 0.0


def _of_text(passage: str, text: str) -> dict[str, list[float | None]]:
    return {name: [reward(passage, text)] for name, reward in TEXT_REWARDS.items()}


def _ranking(path: Path) -> list[list[dict[str, list]]]:
    value = files.read_json(path)
    if not reference.is_results(value):
        raise ValueError(
            f"{path}: must be {_WANTED}; give a file from results/query_server/train"
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
            f"{path}: an article lacks what a SEAL result has ({error!r}); give a file "
            "from results/query_server/train"
        ) from None


def _accuracies(completion: dict[str, Any]) -> list[float | None]:
    """At each seed, or the stated mean where a file lists no answers."""
    if completion["questions"]:
        return [*rankings.accuracies(completion["questions"], "adapter_correct")]
    return [formatting.measured(completion["stats"]["adapter_mean"])]


def _gather(
    passages: list[list[dict[str, list]]], seeds: int | None = None
) -> dict[str, agreement.Seeds]:
    """By name; of each edit the first `seeds`, None: all."""
    names = {name: None for edits in passages for own in edits for name in own}
    return {
        name: [[own.get(name, [])[:seeds] for own in edits] for edits in passages]
        for name in names
    }


# Command


def compare(measured: Measured) -> dict[str, agreement.Agreement | None]:
    """{reward: its agreement with the true one}, also on other seeds where there are.

    The ceiling, "grade, other seeds", comes first.
    """
    rewards = measured.rewards
    true = _means(rewards[TRUE])
    found: dict[str, agreement.Agreement | None] = {}
    for name in (TRUE, *(name for name in rewards if name != TRUE)):
        if name != TRUE:
            found[name] = agreement.agree(true, _means(rewards[name]))
        halves = agreement.agree_halves(rewards[TRUE], rewards[name])
        if halves is not None:
            found[f"{name}, other seeds"] = halves
    return found


def _means(rewards: agreement.Seeds) -> agreement.Values:
    return [[agreement.mean(seeds) for seeds in edits] for edits in rewards]


def has_choice(measured: Measured) -> bool:
    """Whether a passage has more than one edit."""
    return max(map(len, measured.rewards[TRUE]), default=0) > 1


def table(measured: Measured) -> list[tuple[str, ...]]:
    """A heading and a row per reward, as text; see the module's docstring."""
    rows: list[tuple[str, ...]] = [
        (
            measured.title,
            "passages",
            "pooled",
            "95 %",
            "mean ± se",
            "rank ± se",
            "finds best ± se",
            "by chance",
            "pick ± se",
            "mean",
            "best",
            "captured",
            "95 %",
        )
    ]
    for name, a in measured.agreements.items():
        if a is None:
            rows.append((name, "0", *[formatting.MISSING] * 11))
            continue
        rows.append(
            (
                name,
                formatting.count(a.passages),
                formatting.signed(a.pooled),
                formatting.span(*a.pooled_interval, digits=2),
                novelty.plus_minus(*a.pearson),
                novelty.plus_minus(*a.spearman),
                novelty.plus_minus(*a.found),
                formatting.number(a.chance),
                novelty.plus_minus(*a.pick),
                formatting.number(a.mean),
                formatting.number(a.best),
                formatting.percent(a.captured, digits=0),
                formatting.percents(*a.captured_interval),
            )
        )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a table for each round or file of a command line; returns the status."""
    parser = argparse.ArgumentParser(
        prog="python -m seal_jax agreement",
        description="How well cheap rewards of self-edits agree with the true one.",
    )
    parser.add_argument("paths", metavar="PATH", nargs="+")
    args = parser.parse_args(argv)
    return formatting.exit_status(lambda: _print(args.paths))


def _print(paths: Sequence[str]) -> None:
    for path in paths:
        for measured in read(path):
            if has_choice(measured):
                print(formatting.aligned(table(measured)), end="\n\n")
            else:
                print(
                    f"{measured.title}: one edit for each passage: nothing to choose "
                    "from"
                )


if __name__ == "__main__":
    raise SystemExit(main())
