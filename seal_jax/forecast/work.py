"""The work of a run, phase by phase, counted from its config.

Texts, adapters and examples are what the config says. What a text comes to (lines,
tokens, questions) is not known before it is written: it is estimated, and the basis is
named.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

from seal_jax.analysis import halving
from seal_jax.continual.settings import Continual, controls
from seal_jax.deploy import sessions as deploy_sessions
from seal_jax.deploy.settings import BOTH, LOG, NONE, Arm, Deploy
from seal_jax.forecast import named
from seal_jax.lmsi.settings import MAJORITY, Lmsi
from seal_jax.models import hf
from seal_jax.pooled.settings import Pooled
from seal_jax.rewards import names as reward_names
from seal_jax.rounds import gold, ladder_rows, lessons
from seal_jax.rounds.experiment import Experiment
from seal_jax.rounds.few_shot_settings import FewShot
from seal_jax.rounds.over_seeds_settings import OverSeeds
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import files, plugins
from seal_jax.tasks import self_edit, sources, strategies
from seal_jax.tasks.knowledge import PROMPTS
from seal_jax.tasks.passage import Passage
from seal_jax.tasks.settings import TaskConfig
from seal_jax.training import outer_rules
from seal_jax.training.inner_rules import EDITS, RULES

_SAMPLE = 8


@dataclasses.dataclass(frozen=True)
class Text:
    """What one self-edit and its item come to, on average.

    `lines` of `tokens` tokens train an adapter in each of `epochs`; `questions` are put
    to it. An item takes `passage` tokens, a question and its answer `pair`; 0 where no
    rule asks. `basis` says from what that is known; `bound`: what counts from it are.
    `left_out`: what there is nothing for in the data, for people; `ladder`: whether its
    rows are measured.
    """

    lines: float
    tokens: float
    questions: float
    epochs: int
    basis: str
    bound: str = "about"
    ladder: bool = True
    left_out: str = ""
    passage: float = 0.0
    pair: float = 0.0


@dataclasses.dataclass(frozen=True)
class Phase:
    """Counts of a piece of work: `adapters` train on `lines` lines each.

    `written`: texts; `imitated`: those of them that are learned from, at most;
    `compared`: how often those are read besides, for pairs and groups, in all epochs.
    `tokens`: of a line, 0: as `Text` has it. `taught`: tokens that teachers read;
    `scored`: those whose gradient is taken without training (`rounds.dreams`).
    """

    name: str
    written: int = 0
    adapters: int = 0
    lines: float = 0.0
    answers: float = 0.0
    imitated: int = 0
    tokens: float = 0.0
    taught: float = 0.0
    compared: int = 0
    scored: float = 0.0

    def trained(self, each: Text) -> float:
        """Tokens that adapters train on, in all epochs."""
        line = self.tokens or each.tokens
        return self.adapters * self.lines * each.epochs * line


def text(exp: Experiment, items: tuple[list[Any], ...] = ()) -> Text:
    """What an edit of this experiment comes to.

    `items`: lists of items to learn from, and the items held out, if they are loaded.

    Raises:
      ValueError, FileNotFoundError: a model of the package that is none; or see
        `named.check`, and `gold.load` for data that is here.
    """
    named.check(exp)
    if isinstance(exp, FewShot):
        limits, views = exp.edit, 1 + len(exp.views.geometric)
        return Text(
            limits.max_steps * limits.batch,
            exp.inner.row_tokens,
            views,
            1,
            f"at most: edit.max_steps={limits.max_steps} steps of edit.batch="
            f"{limits.batch} lines, each a row of {exp.inner.row_tokens} tokens; an "
            "edit chooses its own",
            "at most",
        )
    if isinstance(exp, Lmsi):
        return Text(
            1.0,
            exp.propose.max_tokens,
            1.0,
            exp.imitate.epochs,
            "no adapter is trained on an item; chains are as long as they may be",
            "at most",
        )
    if not isinstance(exp, PassageRounds | Continual | Deploy | Pooled):
        raise TypeError(type(exp).__name__)
    if exp.task.name == "world":
        return _of_world(exp.task, exp.model.path, exp.inner.epochs)
    published = Text(
        8.7,
        min(52, exp.inner.row_tokens),
        4.5,
        exp.inner.epochs,
        "the means of the 250 self-edits that the paper's authors published: 8.7 lines "
        "of 52 tokens, 4.5 questions; no data was read",
        passage=183,
        pair=39,
    )
    if isinstance(exp, PassageRounds) and _is_here(exp.task):
        train, heldout = items or gold.load(exp)
        return _of_own(exp, published, train, heldout)
    return published


def _is_here(task: TaskConfig) -> bool:
    """Whether the passages are the user's own, and can be read without a hub."""
    if task.name != "passages":
        return plugins.is_named(task.name)
    given = [task.train, *([task.heldout] if task.heldout else [])]
    return all(files.is_file(name) or files.is_folder(name) for name in given)


def _of_own(
    exp: PassageRounds,
    published: Text,
    train: list[list[Passage]],
    heldout: list[Passage],
) -> Text:
    """Questions as they are in the data; lines and tokens as in what was published."""
    passages = list(itertools.chain(*train))
    asked = sum(bool(p.questions) for p in heldout)
    bare = sum(not p.questions for p in passages)
    questions = sum(len(p.questions) for p in passages) / len(passages)
    compare = exp.select.compare
    return dataclasses.replace(
        published,
        questions=questions,
        basis="the means of the 250 self-edits that the paper's authors published: 8.7 "
        f"lines of 52 tokens; {len(passages)} passages were read, of {questions:.1f} "
        "questions each",
        ladder=asked > 0,
        left_out=gold.said(
            bare, len(passages), asked, len(heldout), exp.ladder, compare
        ),
    )


def _of_world(task: TaskConfig, model: str, epochs: int) -> Text:
    """From ideal edits of the first passages: those of the world cost nothing."""
    drawn = sources.passages(task, sources.TRAIN, count=_SAMPLE)
    lines = [
        f"{p.title}\n{line}"
        for p in drawn
        for line in (*(p.oracle or "").splitlines(), p.text)
    ]
    size, by = (lambda text: len(text.split())), "words for tokens"
    if model.startswith("embedded:"):
        tokenizer = hf.load_tokenizer(hf.resolve(model))
        size = lambda text: len(hf.encode(tokenizer, text))
        by = "tokens of the model's tokenizer"
    count = sum(map(size, lines))
    pairs = [
        self_edit.answer_prompt(self_edit.ANSWER_PROMPTS["plain"], p, q.question)
        + q.answer
        for p in drawn
        for q in p.questions
    ]
    return Text(
        len(lines) / len(drawn),
        count / len(lines),
        sum(len(p.questions) for p in drawn) / len(drawn),
        epochs,
        f"ideal edits of the first {len(drawn)} passages, in {by}",
        passage=sum(size(p.text) for p in drawn) / len(drawn),
        pair=sum(map(size, pairs)) / len(pairs),
    )


def phases(exp: Experiment, each: Text) -> list[Phase]:
    """All phases, in order."""
    if isinstance(exp, Continual):
        return list(_continual(exp, each))
    if isinstance(exp, Deploy):
        return list(_deploy(exp, each))
    if isinstance(exp, Pooled):
        return list(_pooled(exp, each))
    if isinstance(exp, Lmsi):
        return list(_lmsi(exp))
    if not isinstance(exp, PassageRounds | FewShot):
        raise TypeError(type(exp).__name__)
    found = list(_rounds(exp, each))
    if each.ladder:
        found += _ladder(exp, each)
    if not isinstance(exp, OverSeeds):
        return found
    return [_times(phase, exp.over_seeds.count) for phase in found]


def _times(phase: Phase, seeds: int) -> Phase:
    return dataclasses.replace(
        phase,
        name=f"{phase.name}, {seeds} seeds",
        written=phase.written * seeds,
        adapters=phase.adapters * seeds,
        answers=phase.answers * seeds,
        imitated=phase.imitated * seeds,
        compared=phase.compared * seeds,
    )


def _items(exp: PassageRounds | FewShot) -> tuple[int, int]:
    """Items of a round, and held-out ones."""
    if isinstance(exp, FewShot):
        return exp.scale.tasks, exp.scale.heldout_tasks
    return exp.scale.passages, exp.scale.heldout_passages


def _rounds(exp: PassageRounds | FewShot, each: Text) -> Iterator[Phase]:
    scale, choice = exp.scale, exp.select
    items = _items(exp)[0]
    tried = scale.edits * scale.seeds
    if choice.halving:
        tried = halving.trainings(halving.from_pairs(choice.halving), scale.edits)
    adapters = items * tried if choice.trains else 0
    weighed = outer_rules.RULES[exp.imitate.rule].weighed
    for index in range(1, scale.rounds + 1):
        gone = index if exp.imitate.data == "accumulate" else 1
        imitated = items * _learned(exp) * gone
        phase = Phase(
            ladder_rows.round_name(index),
            written=items * (choice.written(scale.edits) + _lists(exp)),
            adapters=adapters,
            lines=each.lines,
            answers=(adapters + items) * each.questions + adapters * _quiz(exp),
            imitated=imitated,
            # Once for the reference, and before each step.
            compared=imitated * (1 + exp.imitate.epochs) * weighed,
        )
        yield _scored(exp, _by_rule(exp, phase, each), each, items)
        if ladder_rows.CONTROL in exp.ladder and each.ladder:
            # Its first edits are those of round 1.
            own = choice.written(scale.edits) + _lists(exp)
            written = items * own if index > 1 else 0
            name = f"control, {ladder_rows.round_name(index)}"
            most = lessons.select_rule(exp.imitate, choice.rule, edits=scale.edits)
            kept = items * most.k_best * gone
            control = Phase(name, written=written, imitated=kept)
            yield _by_rule(exp, control, each)


def _learned(exp: PassageRounds | FewShot) -> int:
    """Edits of an item that are learned from, at most."""
    cfg, edits = exp.imitate, exp.scale.edits
    rule = outer_rules.RULES[cfg.rule]
    if rule.weighed:
        return 2 if rule.pairs else edits
    return lessons.select_rule(cfg, exp.select.rule, edits=edits).k_best


def _quiz(exp: PassageRounds | FewShot) -> int:
    """Questions of its own that the policy puts to an adapter, at most."""
    asks = reward_names.SELF_ASKED in exp.select.measured
    return exp.label_free.questions if asks and exp.label_free is not None else 0


def _lists(exp: PassageRounds | FewShot) -> int:
    """Texts written for an item besides its edits: a list of strategies, or none."""
    return int(exp.propose.prompt in strategies.TWO_STEPS)


def _scored(
    exp: PassageRounds | FewShot, phase: Phase, each: Text, items: int
) -> Phase:
    """A round's phase with the gradients of its edits, if any are measured."""
    choice, group, tokens = exp.select, exp.label_free, 0.0
    if not choice.gradients:
        return phase
    asked = group.questions if group is not None else 0
    line = phase.lines * (phase.tokens or each.tokens)
    for name in choice.gradients:
        first = choice.sieve is not None and choice.sieve.by == name
        edits = choice.written(exp.scale.edits) if first else exp.scale.edits
        own = asked if name == reward_names.GRADIENT else each.questions
        tokens += items * (edits * line + own * each.pair)
    # A quiz for each item, whose questions are put to its writer once more.
    quizzes = items if reward_names.GRADIENT in choice.gradients else 0
    return dataclasses.replace(
        phase,
        scored=tokens,
        written=phase.written + quizzes,
        answers=phase.answers + quizzes * asked,
    )


def _by_rule(
    exp: PassageRounds | FewShot, phase: Phase, each: Text, row: str = ""
) -> Phase:
    """A phase in which a policy writes, by the config's inner rule or a row's."""
    if isinstance(exp, FewShot):
        return phase
    name = row if row in RULES else exp.inner.rule
    rule, teach, group = RULES[name], exp.inner.teach, exp.label_free
    if teach is None or name == EDITS:
        return phase
    if not rule.asks:
        # A teacher reads the passage and the lines before, for each line.
        before = each.passage + each.lines / 2 * each.tokens
        return dataclasses.replace(phase, taught=phase.written * each.lines * before)
    asked = group.questions if group is not None else 0
    # Questions are put to their writer again, and to adapters that practise.
    waves = teach.waves if rule.practises else 0
    # Mixed answers are drawn besides, of two readings at a time.
    answers = asked * (phase.written * (1 + 2 * rule.mixes) + phase.adapters * waves)
    readers = phase.adapters * waves if rule.practises else phase.written
    read = readers * asked * (each.passage + each.pair)
    return dataclasses.replace(
        phase,
        lines=asked + teach.passage_line,
        tokens=each.pair,
        answers=phase.answers + answers,
        taught=read if rule.taught else 0.0,
    )


def _ladder(exp: PassageRounds | FewShot, each: Text) -> Iterator[Phase]:
    scale, items = exp.scale, _items(exp)[1]
    writes = {"self_edits", PROMPTS, ladder_rows.CONTROL}
    rounds = [ladder_rows.round_name(i) for i in range(1, scale.rounds + 1)]
    # Of few-shot tasks `in_context` is the base, asked as ever.
    for row in (*exp.ladder, *rounds):
        if ladder_rows.kind_of(row) is ladder_rows.RowKind.NO_ADAPTER:
            yield Phase(f"row {row}", answers=items * each.questions)
            continue
        if row == PROMPTS and isinstance(exp, PassageRounds):
            # Each prompt as a round would, without learning.
            count, trained = len(exp.propose.search), _items(exp)[0]
            tried = trained * scale.edits * count
            adapters = tried * scale.seeds if exp.select.trains else 0
            yield Phase(
                f"row {row}, the search",
                tried,
                adapters,
                each.lines,
                (adapters + trained) * each.questions + adapters * _quiz(exp),
            )
        own = row in writes or row in RULES or ladder_rows.is_round(row)
        written = items * (scale.heldout_edits + _lists(exp)) if own else 0
        edits = scale.heldout_edits if own or row == "random" else 1
        adapters = items * edits * scale.heldout_seeds
        lines = 1.0 if row == "passage_only" else each.lines
        phase = Phase(f"row {row}", written, adapters, lines, adapters * each.questions)
        yield _by_rule(exp, phase, each, row) if own else phase


def _continual(exp: Continual, each: Text) -> Iterator[Phase]:
    count, length = exp.sequence.count, exp.sequence.passages
    for arm in exp.arms:
        # After each edit all passages so far are asked about, and the probes.
        asked = count * length * (length + 1) / 2 + length * exp.sequence.probes
        if arm not in exp.learning_arms:
            yield Phase(f"arm {arm}", answers=count * length * each.questions)
            continue
        chosen = controls(arm) & {"best", "penalty"}
        tries = count * length * (exp.retain.candidates if chosen else 1)
        yield Phase(f"arm {arm}", tries, tries, each.lines, asked * each.questions)


def _deploy(exp: Deploy, each: Text) -> Iterator[Phase]:
    """Of logs the streams, days and sessions that there are.

    Replayed lines are not counted, nor what a night without sessions does not train.
    """
    cfg = exp.stream
    count, days = cfg.count, cfg.days
    nights, sessions = count * days, count * days * cfg.sessions
    if cfg.logs:
        streams = deploy_sessions.load(exp)
        count, days = len(streams.days), streams.nights
        told = [len(day) for stream in streams.days for day in stream if day]
        nights, sessions = len(told), sum(told)
    asked = min(cfg.asked, each.questions)
    # The base answers all questions once, and the users' with their contexts in view.
    whole = 2 * each.questions * sessions
    yield Phase("the un-edited model", answers=whole + cfg.probes * each.questions)
    for name in exp.arms:
        arm = Arm.of(name)
        if arm.rule == NONE:
            continue
        dreams = exp.label_free.questions if arm.dreams and exp.label_free else 0
        statements = {LOG: 1.0, BOTH: each.lines}.get(exp.night.context, each.lines - 1)
        own = asked if arm.asks else statements
        rule, teach = RULES[arm.rule], exp.inner.teach
        waves = teach.waves if rule.practises and teach is not None else 0
        # Mixed answers are drawn of two readings at a time, others before each wave.
        drawn = (2 * rule.mixes + waves) * (asked + dreams)
        writes = (not arm.asks and exp.night.context != LOG) + bool(dreams)
        # By day with contexts in view, and each morning the users' questions so far,
        # the day's other ones, and the probes.
        mornings = asked * sessions * (days + 1) / 2
        others = each.questions * (sessions + count * days * cfg.probes)
        yield Phase(
            f"row {name}",
            written=writes * sessions,
            adapters=nights,
            lines=sessions / nights * (own + dreams),
            answers=(asked + dreams + drawn) * sessions + mornings + others,
            tokens=each.pair if arm.asks else 0.0,
            # What is taught is another thing in each wave.
            taught=sessions * _taught(arm, asked + dreams, each) * max(1, waves),
        )


def _taught(arm: Arm, asked: float, each: Text) -> float:
    """Tokens that the teacher of one session reads."""
    if not RULES[arm.rule].taught:
        return 0.0
    if arm.asks:
        return asked * (each.passage + each.pair)
    # The context and the lines before, for each line but the context's own.
    return (each.lines - 1) * (each.passage + each.lines / 2 * each.tokens)


def _pooled(exp: Pooled, each: Text) -> Iterator[Phase]:
    pool = exp.pool
    asked = pool.questions or math.ceil(pool.passages * each.questions)
    written = 0 if pool.edits_file else pool.passages * pool.edits
    yield Phase("self-edits", written=written)
    for arm in exp.untrained_arms:
        yield Phase(f"row {arm}", answers=asked)
    for arm in exp.trained_arms:
        texts = 1.0 if arm == "passage_only" else pool.edits * (each.lines - 1) + 1
        full = pool.how == "full"
        lines = pool.passages * texts
        yield Phase(
            f"row {arm}{' (all weights)' if full else ''}",
            adapters=0 if full else pool.seeds,
            lines=0.0 if full else lines,
            answers=asked * pool.seeds,
            imitated=round(lines) * pool.seeds if full else 0,
        )


def _lmsi(exp: Lmsi) -> Iterator[Phase]:
    """Every chain that is drawn is kept at most, and written in every format."""
    cfg, asked = exp.chains, exp.scale.questions + exp.scale.heldout
    chains = asked * cfg.samples
    yield Phase("row base", chains, answers=2 * asked)
    most = exp.scale.questions * min(cfg.samples, cfg.cap or cfg.samples)
    for arm in exp.arms:
        for index in range(1, exp.scale.rounds + 1):
            gone = index if exp.imitate.data == "accumulate" else 1
            yield Phase(
                ladder_rows.round_name(index)
                if arm == MAJORITY
                else f"{arm}, {ladder_rows.round_name(index)}",
                chains,
                answers=2 * asked,
                imitated=most * len(cfg.formats) * gone,
            )
