"""The experiment of the rounds, and what few-shot rounds share with it."""

import dataclasses
import math
from typing import Annotated

from seal_jax.analysis import halving, plateau, stats
from seal_jax.generation.settings import Decoding, ModelSource
from seal_jax.rewards import names as reward_names
from seal_jax.rewards import own
from seal_jax.rewards.settings import GradeConfig
from seal_jax.rounds import outer_checks, select, sieves
from seal_jax.rounds.graded import MEAN, OBJECTIVES
from seal_jax.runtime import config_rules, plugins
from seal_jax.runtime.config_rules import (
    Bound,
    Edits,
    Items,
    Rounds,
    Seed,
    Share,
    shown,
)
from seal_jax.runtime.settings import MeshConfig
from seal_jax.runtime.writers import WatchConfig
from seal_jax.tasks import quiz
from seal_jax.tasks.knowledge import PROMPTS
from seal_jax.tasks.settings import EditConfig, ProposeConfig, TaskConfig
from seal_jax.training.inner_rules import RULES
from seal_jax.training.settings import EngineOptions, ImitateConfig, InnerConfig

# Of a reward, which is a share or a mean log-likelihood of answers.
THRESHOLD = Bound(-1e6, 1.0)

# The ladder's rows.
BASE_ARMS = (
    "base",
    "in_context",
    "passage_only",
    "sentence_split",
    "self_edits",
    # What the base policy writes, asked by the best of several prompts.
    "prompts",
    # What the base policy writes, learned by one inner rule or another.
    *RULES,
    "oracle",
)
CONTROL_ARMS = ("random_kept",)

# Who says what an edit's text is worth: rules, an endpoint, or the policy.
SELF = "self"
RUBRICS = ("rules", "judge", SELF)


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much of everything."""

    rounds: Rounds
    passages: Items
    edits: Edits
    seeds: Edits
    heldout_passages: Items
    heldout_edits: Edits
    heldout_seeds: Edits

    def __post_init__(self):
        config_rules.check(self, "scale")
        check_products(self, "passages")

    @property
    def adapters(self) -> int:
        """The most that are trained in one phase."""
        return max(
            self.passages * self.edits * self.seeds,
            self.heldout_passages * self.heldout_edits * self.heldout_seeds,
        )


def check_products(scale: object, items: str) -> None:
    """Refuses a scale of more adapters, or more items, than a host can plan.

    `items`: the scale's word for them.

    Raises:
      ValueError: see above.
    """
    for side in ("", "heldout_"):
        names = [f"{side}{name}" for name in (items, "edits", "seeds")]
        config_rules.at_most(
            "adapters of a phase, " + " * ".join(f"scale.{name}" for name in names),
            math.prod(getattr(scale, name) for name in names),
            config_rules.MOST_ADAPTERS,
        )
    names = ["rounds", items]
    config_rules.at_most(
        " * ".join(f"scale.{name}" for name in names),
        math.prod(getattr(scale, name) for name in names),
        config_rules.MOST_ITEMS,
    )


@dataclasses.dataclass(frozen=True)
class SelectConfig:
    """Which edits are kept.

    `reward`: what decides, one of `reward_names.REWARDS`, or `module:function`, the
    user's own (`own.reward`); `compare`: others that are measured beside it, for the
    report. `threshold`: "none", "baseline" (must beat the
    policy without an adapter), or a number as text.

    `prefilter`: empty, or ("gradient", written, kept, random): so many edits of an item
    are written, and of these the best `kept` by that filter and `random` others are
    trained, `scale.edits` together. "random" draws them all; "gradient_gold" is the
    filter that reads the gold answers (`dreams`).

    `objective`: what an edit is worth of what its seeds earn, their "mean" or their
    "max": where edits are ranked, held to a threshold, race and are reported.

    `halving`: pairs of (seeds, keep): all edits of an item are trained with so many
    seeds, the best `keep` go on to the next pair's number of seeds (`halving`). Empty:
    every edit gets `scale.seeds`.

    `novelty_bonus` times the share of an edit's trigrams that its passage does not have
    is added to the reward where edits are ranked. An edit of which a larger share than
    `max_copied` is in the passage is not kept, nor one whose trigrams overlap by more
    than `max_overlap` (Jaccard) with a better one that is; 1.0 lets all pass.
    """

    reward: str
    compare: tuple[str, ...]
    k_best: Edits
    ties: str
    threshold: str
    halving: tuple[tuple[Edits, ...], ...]
    novelty_bonus: Annotated[float, Bound(0.0, 100.0, least=1e-9)]
    max_copied: Share
    max_overlap: Share
    prefilter: tuple[str | Annotated[int, Bound(0, 1000)], ...] = ()
    objective: str = "mean"

    def __post_init__(self):
        config_rules.one_of("select.objective", self.objective, OBJECTIVES)
        for key, names in (("reward", (self.reward,)), ("compare", self.compare)):
            for name in names:
                plugins.one_of(f"select.{key}", name, reward_names.REWARDS)
                if plugins.is_named(name):
                    own.reward(name, f"select.{key}")
        config_rules.one_of("select.ties", self.ties, select.TIES)
        config_rules.check(self, "select")
        sieves.parse(self.prefilter)
        if self.threshold == "baseline" and self.reward != "grade":
            raise ValueError(
                f"select.threshold='baseline' is an accuracy and select.reward="
                f"{self.reward!r} is not; use reward='grade' or threshold='none'"
            )
        if self.threshold == "baseline" and self.objective != MEAN:
            raise ValueError(
                "select.threshold='baseline' is a mean and select.objective="
                f"{self.objective!r} is not, so that luck would pass; use objective="
                f"{MEAN!r} or threshold='none'"
            )
        if self.threshold not in ("none", "baseline") and not _is_number(
            self.threshold
        ):
            raise ValueError(
                f"select.threshold={shown(self.threshold)} must be 'none', 'baseline' "
                "or a number in quotes"
            )
        free = plugins.is_named(self.reward) or self.reward in reward_names.GRADIENTS
        if _is_number(self.threshold) and not free:
            # No share and no log-likelihood is larger: the round would be for nothing.
            THRESHOLD.check("select.threshold", float(self.threshold))

    @property
    def rule(self) -> select.Rule:
        """How the edits of an item are chosen."""
        none = self.threshold == "none"
        return select.Rule(
            k_best=self.k_best,
            ties=self.ties,
            threshold=None if none else select.threshold(self.threshold),
            bonus=self.novelty_bonus,
            max_copied=self.max_copied,
            max_overlap=self.max_overlap,
            digits=select.SHARE_DIGITS,
        )

    @property
    def sieve(self) -> sieves.Sieve | None:
        """What decides which edits are trained; None: all are."""
        return sieves.parse(self.prefilter)

    def written(self, edits: int) -> int:
        """Edits of an item that are written, of which `edits` are trained."""
        return edits if self.sieve is None else self.sieve.written

    @property
    def gradients(self) -> tuple[str, ...]:
        """Those of `reward_names.GRADIENTS` that are measured, as filter or reward."""
        names = (*([self.sieve.by] if self.sieve else []), *self.measured)
        return tuple(n for n in reward_names.GRADIENTS if n in names)

    @property
    def measured(self) -> tuple[str, ...]:
        """The rewards that a round measures; that which decides is the first."""
        return tuple(dict.fromkeys((self.reward, *self.compare)))

    @property
    def trains(self) -> bool:
        """Whether an adapter has to be trained to know any of them."""
        return any(map(own.trains, self.measured))

    def check_scale(self, *, edits: int, seeds: int) -> None:
        """Refuses a choice that `edits` edits with `seeds` seeds do not allow.

        Raises:
          ValueError: see above.
        """
        if self.reward == "majority" and edits < 3:
            raise ValueError(
                f"select.reward='majority' has no majority of scale.edits={edits}: an "
                "edit is held against the others'; sample 3 or more"
            )
        if self.k_best > edits:
            raise ValueError(
                f"select.k_best={self.k_best} must be at most scale.edits={edits}, of "
                f"which it keeps the best; use {edits}"
            )
        sieve = self.sieve
        if sieve is not None and sieve.trained != edits:
            raise ValueError(
                f"select.prefilter={shown(self.prefilter)} trains kept + random = "
                f"{sieve.trained} edits of an item, and must train scale.edits="
                f"{edits}; set one to the other"
            )
        if not self.halving:
            return
        if not own.trains(self.reward):
            raise ValueError(
                f"select.halving={shown(self.halving)} races by what adapters earn, "
                f"and select.reward={self.reward!r} asks none; use ()"
            )
        try:
            plan = halving.from_pairs(self.halving)
            halving.trainings(plan, edits)
        except ValueError as error:
            given = shown(self.halving)
            raise ValueError(f"select.halving={given}: {error}") from None
        last = plan[-1]
        if last.seeds != seeds or last.keep < self.k_best:
            raise ValueError(
                f"select.halving={shown(self.halving)} ends with {last.seeds} seeds "
                f"and keeps {last.keep}: it must end with scale.seeds={seeds} (set one "
                f"to the other) and keep at least select.k_best={self.k_best}"
            )

    def check_imitate(self, imitate: ImitateConfig, *, edits: int, seeds: int) -> None:
        """Refuses an outer rule that this choice does not allow; see `outer_checks`.

        Raises:
          ValueError: see above.
        """
        outer_checks.check(
            imitate,
            self.rule,
            reward=self.reward,
            objective=self.objective,
            races=halving.from_pairs(self.halving)[-1].keep if self.halving else 0,
            edits=edits,
            seeds=seeds if own.trains(self.reward) else 1,
        )


@dataclasses.dataclass(frozen=True)
class LabelFreeConfig:
    """What a policy asks itself (`label_free`): for rewards, or to learn from it.

    Rewards without gold answers need the group, and inner rules that ask.

    `rubric`: "rules" (strings alone), "judge" (the endpoint of `grade.judge`), or
    "self" (the policy itself, asked `samples` times by a prompt; `self_score`).
    `quiz`: the prompt that has the policy ask itself about a passage it sees, and how
    it is continued; up to `questions` of its questions count.
    """

    rubric: str
    quiz: Decoding
    questions: Annotated[int, Bound(1, 1000)]
    samples: Annotated[int, Bound(1, 1000)]

    def __post_init__(self):
        config_rules.one_of("label_free.rubric", self.rubric, RUBRICS)
        config_rules.one_of("label_free.quiz.prompt", self.quiz.prompt, quiz.PROMPTS)
        config_rules.check(self, "label_free")


@dataclasses.dataclass(frozen=True)
class StopConfig:
    """When to stop before `scale.rounds`: see `plateau.verdict`.

    `rule`: "none", "regression", or "plateau" (either of the two). The ladder's rows
    are compared, from `self_edits` on. `random_kept` walks all rounds nevertheless.
    """

    rule: str
    patience: Rounds
    z: Annotated[float, Bound(1e-6, 1000.0)]

    def __post_init__(self):
        config_rules.one_of("stop.rule", self.rule, plateau.RULES)
        config_rules.check(self, "stop")

    def check_ladder(self, ladder: tuple[str, ...], items: int) -> None:
        """Refuses a rule that has nothing to start from, or too few items to tell.

        Raises:
          ValueError: see above.
        """
        if self.rule != "none" and items < stats.FEWEST:
            raise ValueError(
                f"stop.rule={self.rule!r} compares rounds over {items} held-out items, "
                f"and fewer than {stats.FEWEST} tell nothing; hold out more, or use "
                "'none'"
            )
        if self.rule != "none" and "self_edits" not in ladder:
            raise ValueError(
                f"stop.rule={self.rule!r} compares rounds with the row 'self_edits'; "
                f"add it to ladder={shown(ladder)}, or use 'none'"
            )


@dataclasses.dataclass(frozen=True)
class PassageRounds:
    """Everything that decides a run's result."""

    seed: Seed
    mesh: MeshConfig
    model: ModelSource
    task: TaskConfig
    scale: Scale
    propose: ProposeConfig
    edit: EditConfig
    inner: InnerConfig
    answer: Decoding
    grade: GradeConfig
    label_free: LabelFreeConfig | None
    select: SelectConfig
    imitate: ImitateConfig
    stop: StopConfig
    ladder: tuple[str, ...]
    watch: WatchConfig

    def __post_init__(self):
        config_rules.check(self)
        self.select.check_scale(edits=self.scale.edits, seeds=self.scale.seeds)
        self.select.check_imitate(
            self.imitate, edits=self.scale.edits, seeds=self.scale.seeds
        )
        self.stop.check_ladder(self.ladder, self.scale.heldout_passages)
        for key, names in (
            ("select.reward", (self.select.reward,)),
            ("select.compare", self.select.compare),
        ):
            for name in names:
                if name in reward_names.LABEL_FREE:
                    config_rules.needs_group(
                        self.label_free, "label_free", f"{key}={name!r}"
                    )
        self._check_gradients()
        if self.asks_rubric:
            self.grade.endpoint("label_free.rubric='judge'")
        for arm in self.ladder:
            config_rules.one_of("ladder", arm, (*BASE_ARMS, *CONTROL_ARMS))
        self._check_search()
        for rule, why in self._rules():
            self.inner.check_rule(rule, why)
            if RULES[rule].asks:
                config_rules.needs_group(self.label_free, "label_free", why)

    def _check_search(self) -> None:
        """Refuses a search for prompts that there are none to choose from for."""
        if PROMPTS not in self.ladder:
            return
        if not self.propose.search:
            raise ValueError(
                f"the row {PROMPTS!r} of ladder chooses among propose.search=(), which "
                "names no prompt; name some, such as ('implications', 'rewrite')"
            )
        if RULES[self.inner.rule].asks:
            raise ValueError(
                f"the row {PROMPTS!r} of ladder tries prompts for statements, and "
                f"inner.rule={self.inner.rule!r} has quizzes written; leave it out"
            )

    def _check_gradients(self) -> None:
        """Refuses gradients of edits whose lines are not known before training."""
        sieve, rule = self.select.sieve, self.inner.rule
        if sieve is not None:
            config_rules.at_most(
                "self-edits of a round, scale.passages * those that select.prefilter="
                f"{shown(self.select.prefilter)} has written",
                self.scale.passages * sieve.written,
                config_rules.MOST_ADAPTERS,
            )
        if sieve is not None and sieve.by in reward_names.LABEL_FREE:
            why = f"select.prefilter={shown(self.select.prefilter)}"
            config_rules.needs_group(self.label_free, "label_free", why)
        if self.select.gradients and RULES[rule].practises:
            raise ValueError(
                f"inner.rule={rule!r} draws its answers while adapters train, and "
                f"{self.select.gradients[0]!r} of select.reward, compare or prefilter "
                "is an edit's gradient before; use another of the two"
            )

    def _rules(self) -> list[tuple[str, str]]:
        """The inner rules that are followed, each with what asks for it."""
        rows = [(row, f"the row {row!r} of ladder") for row in self.ladder]
        own = self.inner.rule, f"inner.rule={self.inner.rule!r}"
        return [own, *(row for row in rows if row[0] in RULES)]

    @property
    def asks_rubric(self) -> bool:
        """Whether a judge is asked what edits are worth."""
        group = self.label_free
        judged = group is not None and group.rubric == "judge"
        return judged and "rubric" in self.select.measured

    @property
    def turn_end(self) -> str:
        """The token that ends an answer; empty: the model's own end of text."""
        return ""

    @property
    def base_arms(self) -> tuple[str, ...]:
        """Rows of the ladder that the base policy walks, in order."""
        return BASE_ARMS

    @property
    def last_arms(self) -> tuple[str, ...]:
        """Those that the last policy walks after the rounds."""
        return ()

    @property
    def adapters(self) -> int:
        """The most that are trained in one phase."""
        return self.scale.adapters

    @property
    def lines_per_step(self) -> int:
        """Training lines of one optimizer step."""
        return 1

    @property
    def engine(self) -> EngineOptions:
        """What the inner loop has to be made for besides (`capacity.choose`)."""
        return self.inner.engine(
            [rule for rule, _ in self._rules()],
            asked=self.label_free.questions if self.label_free is not None else 0,
            answer=self.answer.max_tokens,
            written=self.propose.max_tokens,
        )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
