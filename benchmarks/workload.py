"""The work of one published round of SEAL, as lengths: what the benchmarks run on.

    .venv/bin/python benchmarks/workload.py                 # what it amounts to
    .venv/bin/python benchmarks/workload.py --write SEAL    # makes workload.json anew

workload.json holds numbers only. SEAL is a copy of the authors' repository (or any
folder with knowledge-incorporation/ in it); read are the 250 self-edits that round 0
ranked (the first 5 of each of the first 50 articles of iter0_train.json), cut into
training lines as the reference cuts them, and the answers given under the adapters
(rank_iter0.json).

Lengths are estimates, one token per 4.3 characters, since no tokenizer comes with this
repository. That is an overestimate: edits that were cut at the token limit suggest
about 4.95 characters per token of Qwen2.5, so a real round has about 13 % fewer tokens.
Numbers of lines and steps are exact.
"""

import argparse
import dataclasses
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parent / "workload.json"
EDITS_FILE = "knowledge-incorporation/data/synthetic_data/train/iter0_train.json"
RANKED_FILE = "knowledge-incorporation/results/query_server/train/rank_iter0.json"
ARTICLES, EDITS, SEEDS, EPOCHS = 50, 5, 3, 10
CHARACTERS_PER_TOKEN = 4.3
ANSWER_LIMIT = 64  # new tokens per answer, as in the reference
EOS = 0  # the end-of-text id of made-up token ids


@dataclasses.dataclass(frozen=True)
class Edit:
    """One self-edit.

    Attributes:
      tokens: of the completion as it was sampled.
      lines: tokens of each training line; the passage is the last.
      answers: tokens of the answers under its adapters, by seed and question; 0 where
        the answer was blank.
    """

    tokens: int
    lines: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Article:
    """One passage: tokens of the prompts about it, and of what answered them.

    Attributes:
      proposal_prompt: of the prompt that asks for a self-edit.
      question_prompts: of the prompt of each question.
      gold_answers: of the right answer to each.
      base_answers: of the base model's answer to each.
      edits: its self-edits.
    """

    proposal_prompt: int
    question_prompts: tuple[int, ...]
    gold_answers: tuple[int, ...]
    base_answers: tuple[int, ...]
    edits: tuple[Edit, ...]


@dataclasses.dataclass(frozen=True)
class Workload:
    """All articles of a round."""

    articles: tuple[Article, ...]

    def edits(self) -> list[Edit]:
        """All self-edits, by article."""
        return [edit for article in self.articles for edit in article.edits]

    def jobs(
        self, seeds: int = SEEDS, *, scale: float = 1.0, longest: int | None = None
    ) -> list[list[int]]:
        """Tokens of each line of each adapter: by article, edit and seed.

        Args:
          seeds: adapters per edit.
          scale: factor on every length (at least one token is left), for models too
            small for real lengths.
          longest: a longer line is cut to this.
        """
        if scale <= 0 or (longest is not None and longest < 1):
            raise ValueError(f"scale={scale} and longest={longest} must be positive")
        return [
            [min(max(1, round(n * scale)), longest or n) for n in edit.lines]
            for edit in self.edits()
            for _ in range(seeds)
        ]


def load(path: Path = FILE) -> Workload:
    """The committed lengths.

    Raises:
      OSError: `path` cannot be read.
    """
    return parse(json.loads(path.read_text(encoding="utf-8"))["articles"])


def parse(articles: Sequence[dict[str, Any]]) -> Workload:
    """The workload in a file's list of articles."""
    made = []
    for article in articles:
        edits = [
            Edit(e["tokens"], tuple(e["lines"]), tuple(map(tuple, e["answers"])))
            for e in article["edits"]
        ]
        names = ("question_prompts", "gold_answers", "base_answers")
        lists = {name: tuple(article[name]) for name in names}
        prompt = article["proposal_prompt"]
        made.append(Article(proposal_prompt=prompt, edits=tuple(edits), **lists))
    return Workload(tuple(made))


def spread(jobs: Sequence[Sequence[int]], count: int) -> list[int]:
    """Indices of `count` jobs that stand for all of them.

    Sorted by tokens, the jobs are cut into `count` equal parts; the middle one of each
    is taken, shortest first.

    Raises:
      ValueError: fewer jobs than that.
    """
    if not 1 <= count <= len(jobs):
        raise ValueError(
            f"adapters={count} must lie in 1..{len(jobs)}, those there are"
        )
    ordered = sorted(range(len(jobs)), key=lambda i: (sum(jobs[i]), i))
    return [ordered[(2 * part + 1) * len(jobs) // (2 * count)] for part in range(count)]


def token_ids(job: Sequence[int], *, vocab: int, seed: int) -> list[list[int]]:
    """Random ids (never `EOS`) of the given lengths, the same for the same seed."""
    draw = random.Random(seed)
    ids = range(EOS + 1, vocab)
    return [draw.choices(ids, k=length) for length in job]


def describe(workload: Workload) -> dict[str, Any]:
    """What it amounts to, for all seeds where training is meant."""
    jobs = workload.jobs()
    lengths = sorted(n for job in workload.jobs(1) for n in job)
    edits = workload.edits()
    answers = [n for e in edits for by_seed in e.answers for n in by_seed]
    return {
        "articles": len(workload.articles),
        "edits": len(edits),
        "adapters": len(jobs),
        "steps_per_seed": len(lengths) * EPOCHS,
        "steps": sum(map(len, jobs)) * EPOCHS,
        "training_tokens": sum(map(sum, jobs)) * EPOCHS,
        "line_tokens_mean": round(sum(lengths) / len(lengths), 1),
        "line_tokens_median": lengths[len(lengths) // 2],
        "line_tokens_max": lengths[-1],
        "proposed_tokens": sum(edit.tokens for edit in edits),
        "questions": sum(len(a.question_prompts) for a in workload.articles),
        "adapter_answers": len(answers),
        "adapter_answer_tokens": sum(answers),
    }


# Making the file


def tokens(text: str) -> int:
    """The estimate: characters / 4.3, rounded; at least 1 unless there is no text."""
    return max(1, round(len(text) / CHARACTERS_PER_TOKEN)) if text else 0


def measure(seal: Path) -> list[dict[str, Any]]:
    """The file's list of articles, from the published texts under `seal`.

    Raises:
      ValueError: the two files are not about the same articles and self-edits.
      OSError: one cannot be read.
    """
    records = json.loads((seal / EDITS_FILE).read_bytes())[:ARTICLES]
    ranked = json.loads((seal / RANKED_FILE).read_bytes())["articles"]
    if len(ranked) != ARTICLES:
        raise ValueError(
            f"{seal / RANKED_FILE} must rank {ARTICLES} articles, not {len(ranked)}; "
            "give a copy of the authors' repository"
        )
    return [
        _measure_article(*pair, where=f"{seal / RANKED_FILE} article {index}")
        for index, pair in enumerate(zip(records, ranked, strict=True))
    ]


def _measure_article(
    record: dict[str, Any], ranking: dict[str, Any], *, where: str
) -> dict[str, Any]:
    # Here, because the PyTorch baseline reads the file without seal_jax at hand.
    from seal_jax.tasks import self_edit
    from seal_jax.tasks.passage import Passage

    passage = Passage("", record["title"], record["context"], ())
    asked = [q["question"] for q in record["questions"]]
    template = self_edit.ANSWER_PROMPTS["concise"]
    prompts = [self_edit.answer_prompt(template, passage, q) for q in asked]
    edits, base = [], []
    pairs = zip(record["completions"][:EDITS], ranking["completions"], strict=True)
    for completion, judged in pairs:
        rows = judged["questions"]
        same = judged["text"].strip() == completion.strip()
        if not same or [row["question"] for row in rows] != asked * SEEDS:
            raise ValueError(
                f"{where}: must hold the self-edits and questions of {EDITS_FILE}; "
                "give a copy of the authors' repository"
            )
        answers = [_answer_tokens(row["adapter_answer"]) for row in rows]
        base = base or [_answer_tokens(row["baseline_answer"]) for row in rows]
        lines = self_edit.train_lines(
            completion, passage, rule="lines", quirks="reference"
        )
        n = len(asked)
        edits.append(
            {
                "tokens": tokens(completion),
                "lines": [tokens(line) for line in lines],
                "answers": [answers[i * n : (i + 1) * n] for i in range(SEEDS)],
            }
        )
    return {
        "proposal_prompt": tokens(record["prompt"]),
        "question_prompts": [tokens(prompt) for prompt in prompts],
        "gold_answers": [tokens(q["answer"]) for q in record["questions"]],
        "base_answers": base[: len(asked)],
        "edits": edits,
    }


def _answer_tokens(answer: str) -> int:
    return min(tokens(answer.strip()), ANSWER_LIMIT)


def to_text(articles: Sequence[dict[str, Any]]) -> str:
    """The file's content: a head that explains it, then one article per line."""
    head = {
        "what": "token counts of SEAL's published round 0; see workload.py beside it",
        "source": [EDITS_FILE, RANKED_FILE],
        "estimate": f"characters / {CHARACTERS_PER_TOKEN}, rounded, at least 1",
        "answers": f"at most {ANSWER_LIMIT}; 0 is a blank answer",
    }
    rows = ",\n".join(json.dumps(a, separators=(",", ":")) for a in articles)
    return f'{json.dumps(head)[:-1]}, "articles": [\n{rows}\n]}}\n'


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/workload.py", description="The lengths benchmarks run on."
    )
    parser.add_argument(
        "--write", metavar="SEAL", help="make workload.json from SEAL's published data"
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
