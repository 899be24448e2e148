"""A round's work for round.py: configs/squad.py's settings, workload.json's lengths."""

import dataclasses
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import common
import workload

from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import config_rules
from seal_jax.training import plan

CONFIG = common.ROOT / "configs" / "squad.py"
SEED = 0


def settings(overrides: Mapping[str, Any]) -> PassageRounds:
    """configs/squad.py with some of its values replaced.

    Raises:
      ValueError: see `values`, or a value that it refuses.
    """
    return config_rules.build(PassageRounds, values(CONFIG, overrides))


def values(path: Path, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What a config file says, with some of it replaced.

    Raises:
      ValueError: no such key, or a value of another type.
    """
    made = runpy.run_path(str(path))["get_config"]()
    for key, value in overrides.items():
        try:
            made.update_from_flattened_dict({key: value})
        except (KeyError, TypeError) as error:
            reason = " ".join(str(error.args[0]).split())
            raise ValueError(
                f"{key}={value!r} must be a key of configs/{path.name} with a value "
                f"of its type: {reason}"
            ) from None
    return made.to_dict()


# Lengths


def lengths(
    whole: workload.Workload, exp: PassageRounds, *, scale: float = 1.0
) -> tuple[workload.Article, ...]:
    """The articles of a round, as many and as long as the settings allow.

    Args:
      whole: the published round; its first articles, edits and seeds are taken.
      exp: says how many, and the limits on what is written and trained.
      scale: factor on every length; at least one token is left, but what was blank
        stays blank.

    Raises:
      ValueError: more is asked for than there is, or a scale outside (0, 1].
    """
    if not 0 < scale <= 1:
        raise ValueError(f"--scale-lengths={scale} must lie in (0, 1]; 1 is as it was")
    asked, published = exp.scale, whole.articles[0].edits
    for flag, value, known in (
        ("articles", asked.passages, len(whole.articles)),
        ("edits", asked.edits, len(published)),
        ("seeds", asked.seeds, len(published[0].answers)),
    ):
        if value > known:
            raise ValueError(f"--{flag}={value} must be at most {known}, all there are")

    def scaled(sizes: Sequence[int], most: int | None = None) -> tuple[int, ...]:
        made = (max(1, round(n * scale)) if n else 0 for n in sizes)
        return tuple(n if most is None else min(n, most) for n in made)

    longest = exp.inner.loss.longest(exp.inner.row_tokens)
    most_text, most_answer = exp.propose.max_tokens, exp.answer.max_tokens

    def edit(one: workload.Edit) -> workload.Edit:
        by_seed = one.answers[: asked.seeds]
        return workload.Edit(
            tokens=scaled([one.tokens], most_text)[0],
            lines=scaled(one.lines, longest),
            answers=tuple(scaled(row, most_answer) for row in by_seed),
        )

    return tuple(
        workload.Article(
            proposal_prompt=scaled([one.proposal_prompt])[0],
            question_prompts=scaled(one.question_prompts),
            gold_answers=scaled(one.gold_answers),
            base_answers=scaled(one.base_answers, most_answer),
            edits=tuple(edit(e) for e in one.edits[: asked.edits]),
        )
        for one in whole.articles[: asked.passages]
    )


# Tokens of these lengths


class Trial(NamedTuple):
    """One adapter: article, edit and seed."""

    article: int
    edit: int
    seed: int


type Tokens = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Task:
    """A round to run; tokens by article, and then by edit or question.

    `trials` are its adapters, those with the most lines first.
    """

    exp: PassageRounds
    articles: tuple[workload.Article, ...]
    prompts: tuple[Tokens, ...]
    questions: tuple[tuple[Tokens, ...], ...]
    lines: tuple[tuple[tuple[Tokens, ...], ...], ...]
    trials: tuple[Trial, ...]

    def job(self, trial: Trial, *, first_step_only: bool) -> plan.Job:
        """The training of an adapter, or a single step of it."""
        c, lines = self.exp.inner, self.lines[trial.article][trial.edit]
        return plan.Job(
            lines[:1] if first_step_only else lines,
            (SEED, *trial),
            epochs=1 if first_step_only else c.epochs,
            learning_rate=c.learning_rate,
            clip=c.clip,
            loss=c.loss,
        )


def task(
    exp: PassageRounds,
    articles: tuple[workload.Article, ...],
    *,
    vocab: int,
) -> Task:
    """The round with these lengths, of random tokens."""

    def ids(sizes: Sequence[int], *seed: int) -> tuple[Tokens, ...]:
        number = sum(part << 12 * i for i, part in enumerate(seed))
        made = workload.token_ids(sizes, vocab=vocab, seed=number)
        return tuple(map(tuple, made))

    trials = [
        Trial(p, e, s)
        for p, article in enumerate(articles)
        for e, edit in enumerate(article.edits)
        for s in range(len(edit.answers))
    ]
    trials.sort(key=lambda t: -len(articles[t.article].edits[t.edit].lines))
    return Task(
        exp,
        articles,
        prompts=ids([article.proposal_prompt for article in articles], 0),
        questions=tuple(
            ids(article.question_prompts, 1, p) for p, article in enumerate(articles)
        ),
        lines=tuple(
            tuple(ids(edit.lines, 2, p, e) for e, edit in enumerate(article.edits))
            for p, article in enumerate(articles)
        ),
        trials=tuple(trials),
    )
