"""Result files of the SEAL reference: their fine-tuning set, and accuracies.

    seal-jax select RESULT.json --out FILE.jsonl

makes the fine-tuning set, rows of prompt and completion, from a ranking result of the
SEAL reference (results/query_server/train/*.json). The default is the reference's rule
(`select`): the greatest stated mean, to its last bit, and the first of equal ones.
"""

from seal_jax.runtime import interrupts

if __name__ == "__main__":
    interrupts.install()  # Before imports that take seconds.

import json
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seal_jax.rounds import select
from seal_jax.rounds.settings import THRESHOLD
from seal_jax.runtime import command_line, files, formatting, reading
from seal_jax.tasks import self_edit


def sft_rows(
    result: dict[str, Any], rule: select.Rule, *, rng: random.Random | None = None
) -> list[dict[str, str]]:
    """{"prompt", "completion"} of the chosen edits in a ranking result.

    The reward is the stated mean accuracy of the edit's adapters. A completion that
    says nothing (`is_blank`) is never chosen: the reference drops it before it is
    evaluated, and from the set.

    Args:
      result: a result file's value.
      rule: how to choose, the same for all articles.
      rng: for random ties.

    Raises:
      ValueError: an article or completion without the fields of a ranking result, or
        without its passage where that is asked for; or as `select.best`.
    """
    rows = []
    for index, article in enumerate(result["articles"]):
        try:
            prompt, completions = article["prompt"], article["completions"]
            if not isinstance(prompt, str) or not isinstance(completions, list):
                raise TypeError("a text and a list")
            texts = [c["text"].strip() for c in completions]
            rewards = [_mean(c, "adapter_mean") for c in completions]
            baselines = [_mean(c, "baseline_mean") for c in completions]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"article {index}: must have a prompt, and completions with text and "
                f"stats ({error!r:.160}); give a file from results/query_server"
            ) from None
        passage = _passage(article, index) if rule.reads_passage else None
        chosen = select.best(
            select.candidates(
                [
                    None if is_blank(text) else reward
                    for text, reward in zip(texts, rewards, strict=True)
                ],
                texts,
                passage,
            ),
            rule,
            baseline=statistics.fmean(baselines) if baselines else None,
            rng=rng,
        )
        rows += [{"prompt": prompt, "completion": texts[e]} for e in chosen]
    return rows


def is_blank(text: str) -> bool:
    """Whether a completion is no self-edit, since it says nothing."""
    return self_edit.refusal(text, rule="lines", quirks="fixed") is not None


def _mean(completion: dict[str, Any], key: str) -> float:
    value = formatting.measured(completion["stats"][key])
    if value is None:
        raise TypeError(f"{key}={completion['stats'][key]!r:.40} is no finite number")
    return value


def _passage(article: dict[str, Any], index: int) -> str:
    passage = article.get("context")
    if not isinstance(passage, str):
        raise ValueError(
            f"article {index}: novelty needs the passage, its context, which is not "
            "there; give a file that has it, or leave the options of novelty out"
        )
    return passage


# Command


EXAMPLES = """
seal-jax select ranking.json --out=sft.jsonl
seal-jax select ranking.json --out=sft.jsonl --k-best=2 --ties=shortest
seal-jax select ranking.json --out=sft.jsonl --threshold=baseline
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = command_line.Parser(
        prog="seal-jax select",
        description="ReST-EM selection on a ranking result of the SEAL reference.",
        examples=EXAMPLES,
    )
    parser.add_argument("result", help="results/query_server/train/*.json")
    parser.add_argument("--out", required=True, help="JSONL file to write")
    parser.add_argument(
        "--k-best", type=command_line.COUNT, default=1, help="edits per passage"
    )
    parser.add_argument("--ties", choices=select.TIES, default="first")
    parser.add_argument(
        "--threshold",
        type=_threshold,
        help="lowest mean accuracy, or 'baseline': above the model without adapter",
    )
    parser.add_argument(
        "--seed", type=command_line.SEED, default=0, help="of --ties random"
    )
    parser.add_argument(
        "--bonus",
        type=command_line.real(0.0, 100.0, least=1e-9),
        default=0.0,
        help="on the share of new trigrams",
    )
    parser.add_argument(
        "--max-copied",
        type=command_line.real(0.0, 1.0),
        help="largest share of trigrams of the passage",
    )
    parser.add_argument(
        "--max-overlap",
        type=command_line.real(0.0, 1.0),
        help="largest Jaccard index of two kept edits",
    )
    parser.add_argument(
        "--digits",
        type=command_line.whole(0, 17),
        help="decimals to rank by, as our own rounds do with 12; default: all, as the "
        "reference does",
    )
    args = parser.parse_args(argv)
    try:
        result = _read(args.result)
        rule = select.Rule(
            k_best=args.k_best,
            ties=args.ties,
            threshold=args.threshold,
            bonus=args.bonus,
            max_copied=args.max_copied,
            max_overlap=args.max_overlap,
            digits=args.digits,
        )
        _check_count(result, args.k_best)
        rows = sft_rows(result, rule, rng=random.Random(args.seed))
        blank = sum(
            is_blank(completion["text"])
            for article in result["articles"]
            for completion in article["completions"]
        )
        if not rows:
            raise ValueError(
                f"no edit was chosen{f' ({blank} are blank)' * bool(blank)}; lower "
                "--threshold, raise --max-copied, or give articles"
            )
        # Keys in the order of the reference's files.
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        if not Path(args.out).absolute().parent.is_dir():
            raise ValueError(f"--out {args.out}: its folder must exist; create it")
        files.write_text(args.out, text)
    except (ValueError, OSError) as error:
        said = reading.printable(f"{args.result}: {error}")
        print(f"error: {said}", file=sys.stderr)
        return 2
    count = len({row["prompt"] for row in rows})
    print(
        f"{args.out}: {len(rows)} edits for {count} of {len(result['articles'])} "
        "passages"
    )
    if blank:
        print(f"{blank} completions are blank and were not among those to choose")
    return 0


def _check_count(result: dict[str, Any], k_best: int) -> None:
    """Refuses to keep more edits of a passage than any has.

    Raises:
      ValueError: see above; articles that are none are left to `sft_rows`.
    """
    lists = [a.get("completions") for a in result["articles"] if isinstance(a, dict)]
    most = max((len(edits) for edits in lists if isinstance(edits, list)), default=0)
    if most and k_best > most:
        raise ValueError(
            f"--k-best={k_best} must be at most {most}, the edits that a passage has "
            f"here; use {most}"
        )


def _threshold(text: str) -> float | str:
    """As `select.threshold`; a number has the bounds of the config's."""
    number = command_line.real(THRESHOLD.low, THRESHOLD.high)
    return text if text == select.BASELINE else number(text)


def _read(path: str) -> dict[str, Any]:
    if not files.is_file(path):
        raise ValueError("no such file; give a SEAL result file")
    try:
        result = reading.decode_json(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"must be one JSON value ({error}); get it again") from error
    if not isinstance(result, dict) or not isinstance(result.get("articles"), list):
        raise ValueError(
            "must be a JSON object with a list of articles; give a file from "
            "results/query_server"
        )
    return result


if __name__ == "__main__":
    raise SystemExit(main())
