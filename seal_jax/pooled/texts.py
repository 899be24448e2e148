"""What a pooled training is made of: self-edits, their texts, and who is asked what."""

import dataclasses
import math
import random
from collections.abc import Sequence
from pathlib import Path

from seal_jax.pooled.settings import Pooled
from seal_jax.rounds import trials
from seal_jax.runtime import files
from seal_jax.tasks import knowledge, self_edit, squad
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage
from seal_jax.training import plan


def read_edits(
    path: str | Path,
    passages: Sequence[Passage],
    *,
    count: int,
    rule: str = "lines",
    quirks: str = "fixed",
) -> list[Edit]:
    """The first `count` completions of each passage in a file of self-edits.

    One that is refused (`self_edit.refusal`) gives way to a later one, if there is one.

    Args:
      path: JSON in the format of SEAL's synthetic data, a list of {"title", "context",
        "questions", "completions"}, for these passages and perhaps others.
      passages: to be found in it by title and text.
      count: completions of each.
      rule: how they are cut into texts.
      quirks: the reference's or not.

    Raises:
      ValueError: not in that format, a passage that is not in it, or one with fewer
        completions.
      FileNotFoundError: no such file.
    """
    if not files.is_file(path):
        raise FileNotFoundError(
            f"pool.edits_file={str(path)!r}: no such file; give one of self-edits, as "
            "in SEAL's data/synthetic_data"
        )
    records = files.read_data(path)
    by_id = {
        passage.id: record.get("completions")
        for passage, record in zip(
            squad.parse(records, str(path)), records, strict=True
        )
    }
    edits = []
    for p, passage in enumerate(passages):
        completions = by_id.get(passage.id)
        if not isinstance(completions, list) or len(completions) < count:
            have = len(completions) if isinstance(completions, list) else 0
            fix = "lower pool.edits, or take" if have else "take"
            raise ValueError(
                f"pool.edits_file={str(path)!r}: must have pool.edits={count} "
                f"completions about passage {passage.text[:40]!r} of {passage.title!r},"
                f" has {have or 'none'}; {fix} the file that belongs to task.train"
            )
        for text in completions:
            if not isinstance(text, str):
                raise ValueError(
                    f"{path}: completion {text!r:.40} must be text; correct it"
                )
        texts = [text.strip() for text in completions]
        read = [
            (text, self_edit.refusal(text, rule=rule, quirks=quirks)) for text in texts
        ]
        # Stable: those that are refused come last.
        chosen = sorted(read, key=lambda pair: pair[1] is not None)[:count]
        edits += [
            Edit(p, e, "", text, refused=why) for e, (text, why) in enumerate(chosen)
        ]
    return edits


def texts(
    task: knowledge.Knowledge,
    passages: Sequence[Passage],
    edits: Sequence[Edit],
    *,
    copies: str,
) -> list[list[str]]:
    """What is trained on about each passage, the passage itself among it.

    Of a passage whose edits were all refused, that is the passage alone.

    Args:
      task: says how an edit becomes texts.
      passages: all of them.
      edits: of any of them, at least one of each.
      copies: "each" edit brings the passage along; or it comes "once", last.
    """
    by_passage: list[list[str]] = [[] for _ in passages]
    for edit in edits:
        if edit.refused:
            continue
        lines = by_passage[edit.item]
        if copies == "once" and lines:
            lines.pop()  # The passage, which is the last of the new ones too.
        lines += task.lines(passages[edit.item], edit)
    for passage, lines in zip(passages, by_passage, strict=True):
        if not lines:
            lines += task.lines(passage, Edit(0, 0, "", passage.text, fixed=True))[-1:]
    return by_passage


def ask_some(passages: Sequence[Passage], count: int, *, seed: int) -> list[Passage]:
    """The passages with `count` of all their questions, drawn at random; 0: all.

    A passage of which none is drawn is left out.
    """
    places = [
        (p, q)
        for p, passage in enumerate(passages)
        for q in range(len(passage.questions))
    ]
    if not 0 < count < len(places):
        return list(passages)
    chosen = set(random.Random(f"questions {seed}").sample(places, count))
    asked = [
        dataclasses.replace(
            passage,
            questions=tuple(
                question
                for q, question in enumerate(passage.questions)
                if (p, q) in chosen
            ),
        )
        for p, passage in enumerate(passages)
    ]
    return [passage for passage in asked if passage.questions]


def job(
    exp: Pooled,
    task: knowledge.Knowledge,
    by_passage: Sequence[Sequence[str]],
    seed: int,
) -> plan.Job:
    """The training of one model on all texts (`texts`), by LoRA or of all weights."""
    cfg = exp.inner if exp.pool.how == "lora" else exp.full
    flat = [text for group in by_passage for text in group]
    lines, cut = knowledge.encode_lines(exp, task.blank, flat)
    total = cfg.epochs * -(-len(lines) // cfg.batch)
    return plan.Job(
        lines,
        (exp.seed, trials.ADAPT, seed),
        epochs=cfg.epochs,
        learning_rate=cfg.learning_rate,
        clip=cfg.clip,
        loss=exp.inner.loss,
        batch=cfg.batch,
        cut=cut,
        warmup=math.ceil(cfg.warmup_share * total),
    )


def count_too_long(
    task: knowledge.Knowledge, by_passage: Sequence[Sequence[str]]
) -> int:
    """How many of the texts are longer than `job` takes them: it trains their begin."""
    flat = [text for group in by_passage for text in group]
    return len(knowledge.encode_lines(task.exp, task.blank, flat).cut)
