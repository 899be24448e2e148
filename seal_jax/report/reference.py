"""Result files that the SEAL reference writes (results/query_server/**.json), read.

Numbers are recomputed from the verdict on each answer. An article's accuracy is the
mean over its completions of the mean over repetitions of the share of its questions
answered right; the headline is the unweighted mean over articles. Files that list no
answers (some ranking runs) fall back on the statistics they state.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seal_jax.analysis import stats
from seal_jax.runtime import files, formatting


@dataclasses.dataclass(frozen=True)
class Article:
    """One passage's accuracies, without and with an adapter, both in 0..1."""

    passage: tuple[str, str]  # (title, text)
    baseline: float
    adapter: float


@dataclasses.dataclass(frozen=True)
class Results:
    """One result file."""

    name: str
    completions: int  # in all articles together
    articles: tuple[Article, ...]
    verdicts: tuple[tuple[bool, bool], ...]  # (answer is empty, answer is right)

    def pooled(self) -> float | None:
        """Share of all answers that are right; None if the file lists no answers."""
        return _share([right for _, right in self.verdicts])

    def empty_rate(self) -> float | None:
        """Share of all answers that are blank."""
        return _share([empty for empty, _ in self.verdicts])

    def nonempty_accuracy(self) -> float | None:
        """Share of the answers that are not blank that are right."""
        return _share([right for empty, right in self.verdicts if not empty])


def is_results(value: Any) -> bool:
    """Whether a JSON value has the outline of a result file."""
    return isinstance(value, dict) and isinstance(value.get("articles"), list)


def accuracies(questions: Sequence[dict[str, Any]], key: str) -> list[float]:
    """Share of a completion's questions that are right by `key`, in each repetition.

    Raises:
      TypeError: a verdict that is neither true nor false.
    """
    repetitions: dict[int, list[bool]] = {}
    for question in questions:
        if question[key] not in (True, False):
            raise TypeError(f"{key}={question[key]!r:.40} must be true or false")
        repetitions.setdefault(question["rep"], []).append(question[key])
    return [statistics.fmean(verdicts) for verdicts in repetitions.values()]


def parse(name: str, value: dict[str, Any]) -> Results:
    """The results in a file's JSON value.

    Raises:
      ValueError: no articles, or one without the fields of a result file.
    """
    articles, verdicts, completions = [], [], 0
    for index, article in enumerate(value["articles"]):
        try:
            articles.append(_article(article))
            completions += len(article["completions"])
            verdicts += [
                (not q["adapter_answer"].strip(), bool(q["adapter_correct"]))
                for c in article["completions"]
                for q in c["questions"]
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{name}: article {index} lacks what a SEAL result file has "
                f"({error!r:.160}); give a file from results/query_server"
            ) from None
    if not articles:
        raise ValueError(
            f"{name}: articles must not be empty; give a finished result file"
        )
    return Results(name, completions, tuple(articles), tuple(verdicts))


def read(path: str | Path) -> Results:
    """`parse` of a file, named by its stem."""
    value = files.read_json(path)
    if not is_results(value):
        raise ValueError(
            f"{path}: a SEAL result file has a list of articles; give a file from "
            "results/query_server"
        )
    return parse(Path(path).stem, value)


def paired(a: Results, b: Results) -> tuple[int, float, float | None, float | None]:
    """(n, diff, se, z) of the adapters' accuracies a - b over the passages of both.

    Raises:
      ValueError: they share no passage.
    """
    there = {article.passage: article.adapter for article in b.articles}
    both = [(x.adapter, there[x.passage]) for x in a.articles if x.passage in there]
    if not both:
        raise ValueError(
            f"{a.name} and {b.name} share no passage; compare runs over the same ones"
        )
    return len(both), *stats.paired([x for x, _ in both], [y for _, y in both])


def _article(article: dict[str, Any]) -> Article:
    baseline, adapter = [], []
    for completion in article["completions"]:
        questions = completion["questions"]
        if not questions:
            for key, means in (("baseline_mean", baseline), ("adapter_mean", adapter)):
                value = formatting.measured(completion["stats"][key])
                if value is None:
                    raise TypeError(f"{key} must be a number")
                means.append(value)
            continue
        for which, means in (("baseline", baseline), ("adapter", adapter)):
            repeats = accuracies(questions, f"{which}_correct")
            means.append(statistics.fmean(repeats))
    passage = (article["title"], article["context"])
    if not adapter:
        raise KeyError("completions")
    return Article(passage, statistics.fmean(baseline), statistics.fmean(adapter))


def _share(flags: list[bool]) -> float | None:
    return math.fsum(flags) / len(flags) if flags else None
