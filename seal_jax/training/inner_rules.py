"""Inner rules: what an adapter learns of a self-edit, and by which loss; no jax.

edits          the edit's lines, by cross-entropy: SEAL's own (arXiv 2506.10943)
distill_edits  ... by the divergence from the base that has the passage in view
quiz           answers to the questions that the policy asks itself, by cross-entropy
distill        ... by the divergence from the base that has the passage in view: context
               distillation (Snell et al. 2022, arXiv 2209.15189)
on_policy      ... on answers that the adapter itself gives, drawn anew in waves
               (Shenfeld et al. 2026, arXiv 2601.19897; Zhao et al. 2026, 2601.18734)
mix            as quiz, the answers drawn token by token from the base with the passage
               in view or without it (MixSD, arXiv 2605.16865)

Whoever has the passage in view is the *teacher*; it is frozen and has no adapter. An
adapter, the *student*, is asked without the passage.
"""

import dataclasses
from typing import Annotated, NamedTuple

from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import AnySize, Bound, Share

EDITS, QUIZ, DISTILL = "edits", "quiz", "distill"
DISTILL_EDITS, ON_POLICY, MIX = "distill_edits", "on_policy", "mix"


class Rule(NamedTuple):
    """What sets a rule apart.

    `asks`: a self-edit is a quiz. `taught`: by a teacher's distribution in place of the
    tokens. `practises`: the student's own answers are what is taught. `mixes`: answers
    are drawn from teacher and student.
    """

    asks: bool = False
    taught: bool = False
    practises: bool = False
    mixes: bool = False


RULES: dict[str, Rule] = {
    EDITS: Rule(),
    QUIZ: Rule(asks=True),
    DISTILL: Rule(asks=True, taught=True),
    DISTILL_EDITS: Rule(taught=True),
    ON_POLICY: Rule(asks=True, taught=True, practises=True),
    MIX: Rule(asks=True, mixes=True),
}
FORWARD, REVERSE, JSD = DIVERGENCES = ("forward", "reverse", "jsd")

# Of a rule: 0 is `inner.learning_rate`.
RuleRate = Annotated[float, Bound(0.0, 100.0, least=1e-12)]


@dataclasses.dataclass(frozen=True)
class RatesConfig:
    """The learning rate of each rule, 0: `inner.learning_rate`.

    Rules that are compared at one rate are not compared: each has its own best.
    """

    edits: RuleRate
    quiz: RuleRate
    distill: RuleRate
    distill_edits: RuleRate
    on_policy: RuleRate
    mix: RuleRate

    def __post_init__(self):
        config_rules.check(self, "inner.teach.rates")

    def of(self, rule: str) -> float:
        """The rate of a rule; 0: it has none of its own."""
        return dataclasses.asdict(self)[rule]


@dataclasses.dataclass(frozen=True)
class TeachConfig:
    """What rules other than "edits" need; each reads what concerns it.

    Attributes:
      rates: see `RatesConfig`.
      passage_line: whether rules that ask train on the passage as well, its line last.
      divergence: of a teacher T and a student S over the whole vocabulary: "forward" is
        KL(T || S), "reverse" KL(S || T), "jsd" the Jensen-Shannon divergence in which
        the teacher weighs `beta`.
      skip: the first tokens of an answer that are not learned, as a teacher may begin
        by naming the passage.
      waves: parts of the training of "on_policy", each on answers of its own.
      temperature: of the answers that a student practises on, and of mixed ones.
      mix: the share of a mixed answer's tokens that the teacher draws.
      tokens: of a teacher, of which there is room for each adapter of a pool on the
        device, on average; 0: as many as an edit can come to.
    """

    rates: RatesConfig
    passage_line: bool
    divergence: str
    beta: Annotated[float, Bound(1e-3, 0.999)]
    skip: Annotated[int, Bound(0, 1000)]
    waves: Annotated[int, Bound(1, 1000)]
    temperature: Annotated[float, Bound(0.0, 100.0, least=1e-3)]
    mix: Share
    tokens: AnySize

    def __post_init__(self):
        config_rules.one_of("inner.teach.divergence", self.divergence, DIVERGENCES)
        config_rules.check(self, "inner.teach")
