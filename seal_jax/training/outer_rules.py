"""Outer rules: what a policy learns of the edits of a round; no jax.

best      the best edit of each item, by cross-entropy: SEAL's own (arXiv 2506.10943)
positive  every edit that beats the baseline: ReST-EM's own (Singh et al. 2023, arXiv
          2312.06585)
dpo       the best edit of an item against its worst (Rafailov et al. 2023, arXiv
          2305.18290)
ipo       ... with a loss that is least at a finite lead (Azar et al. 2023, arXiv
          2310.12036)
grpo      all edits of an item, by their lead over its mean (Shao et al. 2024, arXiv
          2402.03300)
rloo      ... over the mean of the others (Ahmadian et al. 2024, arXiv 2402.14740)

The *reference* of the last four is the policy that training begins with: the one that
is there without the adapter.
"""

import dataclasses
from typing import Annotated, NamedTuple

from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import Bound, Edits

BEST, POSITIVE, DPO, IPO = "best", "positive", "dpo", "ipo"
GRPO, RLOO = "grpo", "rloo"


class Rule(NamedTuple):
    """What sets a rule apart.

    `pairs`: an item teaches by two of its edits, one against the other. `groups`: by
    all of them, each by its advantage, which holds for edits of the policy that is
    tuned alone. Rules with either hold the policy to a reference.
    """

    pairs: bool = False
    groups: bool = False

    @property
    def weighed(self) -> bool:
        """Whether its losses are of whole edits, and look at a reference."""
        return self.pairs or self.groups

    @property
    def lines(self) -> int:
        """Lines that are trained together: the two of a pair, or one."""
        return 1 + self.pairs


RULES: dict[str, Rule] = {
    BEST: Rule(),
    POSITIVE: Rule(),
    DPO: Rule(pairs=True),
    IPO: Rule(pairs=True),
    GRPO: Rule(groups=True),
    RLOO: Rule(groups=True),
}

# Of a rule: 0 is `imitate.learning_rate`.
RuleRate = Annotated[float, Bound(0.0, 100.0, least=1e-12)]
# A weight that may be none at all.
AnyWeight = Annotated[float, Bound(0.0, 1e6, least=1e-6)]


@dataclasses.dataclass(frozen=True)
class OuterRates:
    """The learning rate of each rule, 0: `imitate.learning_rate`.

    Rules that are compared at one rate are not compared: each has its own best.
    """

    positive: RuleRate
    dpo: RuleRate
    ipo: RuleRate
    grpo: RuleRate
    rloo: RuleRate

    def __post_init__(self):
        config_rules.check(self, "imitate.prefer.rates")

    def of(self, rule: str) -> float:
        """The rate of a rule; 0: it has none of its own."""
        return dataclasses.asdict(self).get(rule, 0.0)


@dataclasses.dataclass(frozen=True)
class PreferConfig:
    """What rules other than "best" need; each reads what concerns it.

    Attributes:
      rates: see `OuterRates`.
      most: "positive": edits of an item, at most.
      shrink: pairs and groups: rewards are drawn towards their item's mean by the
        round's measured reliability (`analysis.variance`). Where that is exactly 0
        nothing is learned, whatever the novelty. Above, edits of equal seeds all have
        one reliability, and Adam cancels a factor that all advantages have: shrinking
        decides whether a round is learned, not how much. It tells only by edits of
        more and of fewer seeds, and beside `kl`.
      margin: pairs: those are dropped whose rewards are not so many standard errors of
        their difference apart; the error is that of the round's seeds together, of two
        edits that were not chosen. Best and worst are: of items whose edits differ by
        luck alone, 2.0 lets pass 5 % with 2 edits, 11 % with 3, 27 % with 5, and 80 %
        with 15. 5 % pass with 2.0, 2.34, 2.73, and 3.39 (the studentized range). Pairs
        are of one prompt: edits by strategies mostly have no other to be paired with.
      beta: pairs: how far a lead in log-likelihood counts. 1 / (2 beta) is the lead at
        which "ipo" is content.
      nll: pairs: weight of the winner's cross-entropy, mean per token, in the loss
        (Pang et al. 2024, arXiv 2404.19733).
      per_token: an edit's log-likelihood is the mean over its tokens in place of the
        sum, so that a longer text has no larger say. "grpo" always does so.
      clip: groups: an edit whose likelihood has changed by more than this share, in the
        direction of its advantage, moves no further; 0: all do. Groups take edits for
        samples of the policy at temperature 1, of all tokens: a run says where they are
        not, since that biases the gradient.
      kl: groups: weight of KL(policy || reference), estimated on the edits' tokens
        ("k3").
      std: "grpo": advantages are divided by their group's standard deviation. Without
        it, and noise no longer grows where edits are alike (Liu et al. 2025, arXiv
        2503.20783).
      tilt: groups: advantages are those of exp(tilt * reward), over its mean, so that
        the best edits count most; 0: of the reward itself.
    """

    rates: OuterRates
    most: Edits
    shrink: bool
    margin: Annotated[float, Bound(0.0, 100.0)]
    beta: Annotated[float, Bound(1e-4, 1e3)]
    nll: AnyWeight
    per_token: bool
    clip: Annotated[float, Bound(0.0, 100.0, least=1e-6)]
    kl: AnyWeight
    std: bool
    tilt: Annotated[float, Bound(0.0, 1e3, least=1e-6)]

    def __post_init__(self):
        config_rules.check(self, "imitate.prefer")
