"""The choice of ReST-EM: which self-edits of a passage the policy shall imitate.

    python -m seal_jax.select RESULT.json --out FILE.jsonl

makes the fine-tuning set, rows of prompt and completion, from a ranking result of the
SEAL reference (results/query_server/train/*.json). The default is the reference's rule:
of each passage the one edit with the highest mean accuracy, the first one where several
share it, without a threshold.

Nothing in that rule asks for new text, and with the rounds the edits of a passage grow
alike. Three options ask for it: a bonus in the ranking, and limits on what is copied
from the passage and on what two chosen edits share.
"""

import argparse
import dataclasses
import json
import math
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from seal_jax import files, ngrams

TIES = ("first", "shortest", "random")
BASELINE = "baseline"

type Overlap = Callable[[int, int], float | None]


def best(
    rewards: Sequence[float | None],
    *,
    k_best: int = 1,
    ties: str = "first",
    threshold: float | str | None = None,
    baseline: float | None = None,
    lengths: Sequence[int] | None = None,
    rng: random.Random | None = None,
    novelty: Sequence[float | None] | None = None,
    bonus: float = 0.0,
    copied: Sequence[float | None] | None = None,
    max_copied: float | None = None,
    overlap: Overlap | None = None,
    max_overlap: float | None = None,
) -> list[int]:
    """Indices of the edits of one passage to imitate, best first.

    Args:
      rewards: of each edit, the mean over its seeds. None, not scored, is never chosen.
      k_best: at most so many.
      ties: which of equally good edits comes first: the "first" drawn, the "shortest"
        (by `lengths`), or one at "random" (by `rng`).
      threshold: an edit must reach this reward; "baseline": it must exceed `baseline`,
        what the passage's questions give without any adapter. None chooses regardless.
      novelty: of each edit; edits are ranked by reward + `bonus` * novelty, while
        thresholds are for the reward. None, not known, has no bonus.
      copied: share of each edit that is copied; one above `max_copied` is never chosen.
      overlap: of two edits, by index; an edit with more than `max_overlap` to a better
        one that is chosen already is passed over. For these two, None passes.

    Returns:
      at most `k_best` indices; none where no edit was scored or passed.

    Raises:
      ValueError: unknown option, an option's companion is missing, or a reward that is
        not finite.
    """
    _check(rewards, k_best=k_best, ties=ties, lengths=lengths, rng=rng)
    each = {"novelty": novelty, "copied": copied}
    _check_options(len(rewards), each, overlap, bonus, max_copied, max_overlap)
    order = list(range(len(rewards)))
    if ties == "shortest" and lengths is not None:
        order.sort(key=lambda e: lengths[e])
    if ties == "random" and rng is not None:
        rng.shuffle(order)
    passed = _threshold(threshold, baseline)
    scored = []
    for e in order:
        reward = rewards[e]
        if reward is None or not passed(reward) or _above(copied, e, max_copied):
            continue
        extra = (novelty[e] if novelty else None) or 0.0
        # A mean is a quotient: equal shares may differ in the last bit.
        scored.append((round(reward + bonus * extra, 12), e))
    # Stable: ties stay in `order`.
    scored.sort(key=lambda s: s[0], reverse=True)
    chosen: list[int] = []
    for _, e in scored:
        shared = [overlap(e, c) for c in chosen] if overlap else []
        if not any(_above(shared, i, max_overlap) for i in range(len(shared))):
            chosen.append(e)
        if len(chosen) == k_best:
            break
    return chosen


@dataclasses.dataclass(frozen=True)
class Novelty:
    """What `best` takes to ask for new text, of the edits of one passage."""

    novelty: list[float | None]  # share of an edit's trigrams that the passage lacks
    copied: list[float | None]  # 1 - novelty
    overlap: Overlap  # Jaccard index of two edits' trigrams


def novelties(passage: str, texts: Sequence[str]) -> Novelty:
    """Of the edits `texts` of one passage; trigrams as in `ngrams`.

    An edit of fewer than three words has None, and with another edit it overlaps fully
    if it has the same words; else that is None as well.
    """
    sets = [ngrams.trigrams(text) for text in texts]
    novel = [ngrams.novel_share(passage, text) for text in texts]

    def overlap(a: int, b: int) -> float | None:
        if sets[a] and sets[b]:
            return ngrams.index(sets[a], sets[b])
        return 1.0 if ngrams.words(texts[a]) == ngrams.words(texts[b]) else None

    return Novelty(novel, [None if n is None else 1 - n for n in novel], overlap)


def _above(values: Sequence[float | None] | None, i: int, limit: float | None) -> bool:
    """Whether a value is known and above a limit that is set."""
    value = values[i] if values else None
    return value is not None and limit is not None and value > limit


def _check(rewards, *, k_best, ties, lengths, rng) -> None:
    if k_best < 1:
        raise ValueError(f"k_best={k_best} must be at least 1")
    if ties not in TIES:
        raise ValueError(f"ties={ties!r} must be one of {', '.join(TIES)}")
    if ties == "shortest" and (lengths is None or len(lengths) != len(rewards)):
        raise ValueError(
            f"ties='shortest' needs lengths, one for each of the {len(rewards)} "
            f"rewards; got {lengths if lengths is None else len(lengths)}"
        )
    if ties == "random" and rng is None:
        raise ValueError("ties='random' needs rng; give a random.Random with a seed")
    for reward in rewards:
        if reward is not None and not math.isfinite(reward):
            raise ValueError(
                f"reward={reward} must be finite; give None for an edit not scored"
            )


def _check_options(edits, each, overlap, bonus, max_copied, max_overlap) -> None:
    for name, values in each.items():
        if values is not None and len(values) != edits:
            raise ValueError(
                f"{name} has {len(values)} values: must be one for each of the {edits} "
                "rewards"
            )
    if not (math.isfinite(bonus) and bonus >= 0):
        raise ValueError(f"bonus={bonus} must be at least 0 and finite; 0 is none")
    for name, limit in (("max_copied", max_copied), ("max_overlap", max_overlap)):
        if limit is not None and not 0 <= limit <= 1:
            raise ValueError(
                f"{name}={limit} must be between 0 and 1; None is no limit"
            )
    for option, asked, needs, given in (
        (f"bonus={bonus}", bonus > 0, "novelty", each["novelty"]),
        (f"max_copied={max_copied}", max_copied is not None, "copied", each["copied"]),
        (f"max_overlap={max_overlap}", max_overlap is not None, "overlap", overlap),
    ):
        if asked and given is None:
            raise ValueError(f"{option} needs {needs}; give it, as of `novelties`")


def _threshold(threshold: float | str | None, baseline: float | None):
    """Whether a reward passes, as a function of it."""
    if threshold is None:
        return lambda reward: True
    if isinstance(threshold, str):
        if threshold != BASELINE:
            raise ValueError(
                f"threshold={threshold!r} must be a number, {BASELINE!r} or None"
            )
        if baseline is None:
            raise ValueError(
                "threshold='baseline' needs the accuracy without an adapter; give "
                "baseline"
            )
        return lambda reward: reward > baseline
    if not math.isfinite(threshold):
        raise ValueError(f"threshold={threshold} must be finite; None is no threshold")
    return lambda reward: reward >= threshold


def number_or_baseline(text: str) -> float | str:
    """A threshold of `best` written as text."""
    return text if text == BASELINE else float(text)


# Result files of the reference


def sft_rows(result: dict[str, Any], **options: Any) -> list[dict[str, str]]:
    """{"prompt", "completion"} of the chosen edits in a ranking result.

    The reward is the stated mean accuracy of the edit's adapters.

    Args:
      result: a result file's value.
      **options: of `best`, which are the same for all articles.

    Raises:
      ValueError: an article or completion without the fields of a ranking result, or
        without its passage where that is asked for; or as `best`.
    """
    limits = (options.get("max_copied"), options.get("max_overlap"))
    asked = bool(options.get("bonus")) or any(limit is not None for limit in limits)
    rows = []
    for index, article in enumerate(result["articles"]):
        try:
            prompt, completions = article["prompt"], article["completions"]
            texts = [c["text"].strip() for c in completions]
            rewards = [float(c["stats"]["adapter_mean"]) for c in completions]
            baselines = [float(c["stats"]["baseline_mean"]) for c in completions]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"article {index}: must have a prompt, and completions with text and "
                f"stats ({error!r}); give a file from results/query_server"
            ) from None
        known: dict[str, Any] = {}
        if asked:
            known = dataclasses.asdict(novelties(_passage(article, index), texts))
        chosen = best(
            rewards,
            baseline=statistics.fmean(baselines) if baselines else None,
            lengths=[len(text) for text in texts],
            **known,
            **options,
        )
        rows += [{"prompt": prompt, "completion": texts[e]} for e in chosen]
    return rows


def _passage(article: dict[str, Any], index: int) -> str:
    passage = article.get("context")
    if not isinstance(passage, str):
        raise ValueError(
            f"article {index}: novelty needs the passage, its context, which is not "
            "there; give a file that has it, or leave the options of novelty out"
        )
    return passage


def summarize(result: dict[str, Any]) -> dict[str, float]:
    """A result's `overall` numbers, computed anew from the verdict on each answer.

    An article's accuracy is the mean over completions of the mean over repetitions;
    deviations have n - 1 below the line and are 0 for one value. Nothing is rounded.

    Raises:
      ValueError: an article without verdicts (some of the released files state only
        their means).
    """
    baseline, adapter, over_completions, within = [], [], [], []
    for index, article in enumerate(result["articles"]):
        completions = article["completions"]
        if not completions or not all(c["questions"] for c in completions):
            raise ValueError(
                f"article {index}: a completion has no verdicts to count; give a file "
                "that lists its questions"
            )
        runs = [accuracies(c["questions"], "adapter_correct") for c in completions]
        base = [accuracies(c["questions"], "baseline_correct") for c in completions]
        means = [statistics.fmean(run) for run in runs]
        baseline.append(statistics.fmean(statistics.fmean(run) for run in base))
        adapter.append(statistics.fmean(means))
        over_completions.append(_deviation(means))
        within.append(statistics.fmean(_deviation(run) for run in runs))
    if not adapter:
        raise ValueError("articles must not be empty; give a finished result file")
    return {
        "baseline_mean_accuracy": statistics.fmean(baseline),
        "baseline_std_of_article_means": _deviation(baseline),
        "adapter_mean_accuracy": statistics.fmean(adapter),
        "adapter_std_of_article_means": _deviation(adapter),
        "mean_adapter_std_over_completions": statistics.fmean(over_completions),
        "mean_adapter_std_within_completions": statistics.fmean(within),
        "mean_gain": statistics.fmean(adapter) - statistics.fmean(baseline),
    }


def accuracies(questions: Sequence[dict[str, Any]], key: str) -> list[float]:
    """Share of a completion's questions that are right by `key`, in each repetition."""
    repetitions: dict[int, list[bool]] = {}
    for question in questions:
        repetitions.setdefault(question["rep"], []).append(question[key])
    return [statistics.fmean(verdicts) for verdicts in repetitions.values()]


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


# Command


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m seal_jax.select",
        description="ReST-EM selection on a ranking result of the SEAL reference.",
    )
    parser.add_argument("result", help="results/query_server/train/*.json")
    parser.add_argument("--out", required=True, help="JSONL file to write")
    parser.add_argument("--k-best", type=int, default=1, help="edits per passage")
    parser.add_argument("--ties", choices=TIES, default="first")
    parser.add_argument(
        "--threshold",
        type=number_or_baseline,
        help="lowest mean accuracy, or 'baseline': above the model without adapter",
    )
    parser.add_argument("--seed", type=int, default=0, help="of --ties random")
    parser.add_argument(
        "--bonus", type=float, default=0.0, help="on the share of new trigrams"
    )
    parser.add_argument(
        "--max-copied", type=float, help="largest share of trigrams of the passage"
    )
    parser.add_argument(
        "--max-overlap", type=float, help="largest Jaccard index of two kept edits"
    )
    args = parser.parse_args(argv)
    try:
        result = _read(args.result)
        rows = sft_rows(
            result,
            k_best=args.k_best,
            ties=args.ties,
            threshold=args.threshold,
            rng=random.Random(args.seed),
            bonus=args.bonus,
            max_copied=args.max_copied,
            max_overlap=args.max_overlap,
        )
        if not rows:
            raise ValueError(
                "no edit was chosen; lower --threshold, raise --max-copied, or give "
                "articles"
            )
        # Keys in the order of the reference's files.
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        if not Path(args.out).absolute().parent.is_dir():
            raise ValueError(f"--out {args.out}: its folder must exist; create it")
        files.write_text(args.out, text)
    except (ValueError, OSError) as error:
        print(f"error: {args.result}: {error}", file=sys.stderr)
        return 2
    count = len({row["prompt"] for row in rows})
    print(
        f"{args.out}: {len(rows)} edits for {count} of {len(result['articles'])} "
        "passages"
    )
    return 0


def _read(path: str) -> dict[str, Any]:
    try:
        result = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise ValueError("no such file; give a SEAL result file") from None
    except ValueError as error:
        raise ValueError(f"must be one JSON value ({error}); get it again") from None
    if not isinstance(result, dict) or not isinstance(result.get("articles"), list):
        raise ValueError(
            "must be a JSON object with a list of articles; give a file from "
            "results/query_server"
        )
    return result


if __name__ == "__main__":
    raise SystemExit(main())
