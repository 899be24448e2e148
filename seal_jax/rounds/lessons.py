"""What a policy is to learn of a round's edits, by the outer rule; no jax.

`training.outer_rules` names the rules; here graded edits become lessons: edits to be
imitated, pairs of edits, or edits with advantages.
"""

import collections
import dataclasses
import math
from collections.abc import Sequence

from seal_jax.analysis import reliability, variance
from seal_jax.rewards import names as reward_names
from seal_jax.rounds import select
from seal_jax.rounds.graded import Graded, by_item
from seal_jax.tasks.base import Edit
from seal_jax.training.outer_rules import GRPO, POSITIVE, RULES, PreferConfig
from seal_jax.training.settings import ImitateConfig

# Added to a group's standard deviation (Shao et al. 2024; TRL's value).
_LEAST_SPREAD = 1e-4


@dataclasses.dataclass(frozen=True)
class Lesson:
    """An edit to learn from.

    `other`: the edit that it is preferred to, where a rule has pairs. `advantage`: what
    it has over its group, where a rule has groups; 1 where the edit is imitated.
    """

    edit: Edit
    other: Edit | None = None
    advantage: float = 1.0

    @property
    def kept(self) -> bool:
        """Whether the policy is to write such edits more often."""
        return self.advantage > 0


@dataclasses.dataclass(frozen=True)
class Measured:
    """Edits of one item that can be compared, and what each is worth.

    `seeds`: how many each was measured by. `bonus`: for novelty, which `values` have
    and `rewards` have not.
    """

    edits: list[Edit]
    rewards: list[float]
    bonus: list[float]
    seeds: list[int]

    @property
    def values(self) -> list[float]:
        """What they are ranked by."""
        return self.plus_bonus(self.rewards)

    def plus_bonus(self, rewards: Sequence[float]) -> list[float]:
        """Rewards with the bonus; rounded as where edits are ranked."""
        pairs = zip(rewards, self.bonus, strict=True)
        return [round(r + b, select.SHARE_DIGITS) for r, b in pairs]

    def shrunk(self, parts: variance.Components) -> list[float]:
        """Their values, rewards drawn towards their mean by what of them is luck."""
        middle = math.fsum(self.rewards) / len(self.rewards)
        pulled = [
            middle + (variance.reliability(parts, seeds) or 0.0) * (reward - middle)
            for reward, seeds in zip(self.rewards, self.seeds, strict=True)
        ]
        return self.plus_bonus(pulled)


def select_rule(cfg: ImitateConfig, rule: select.Rule, *, edits: int) -> select.Rule:
    """How edits to be imitated are chosen: by `select`, or all that beat the baseline.

    `rule` is that of `select`; its threshold, where there is one, stands for the
    baseline. `edits`: of an item.
    """
    if cfg.rule != POSITIVE:
        return rule
    bound = select.BASELINE if rule.threshold is None else rule.threshold
    most = min(options(cfg).most, edits)
    return dataclasses.replace(rule, threshold=bound, k_best=most)


def choose(
    graded: Sequence[Graded],
    passages: Sequence[str | None],
    baseline: Sequence[float | None],
    *,
    cfg: ImitateConfig,
    rule: select.Rule,
    ties_seed: str,
) -> list[Lesson]:
    """The lessons of a round.

    A winner is the edit that `select.choose` would keep, a loser the worst of the same
    item that the same prompt wrote: of others nobody knows which is likelier to begin
    with. Equal texts of a prompt are one edit there. Edits without a reward, those
    refused, and those that left a race teach nothing.

    Args:
      graded, passages, baseline, ties_seed: as of `select.choose`.
      cfg: the outer rule and its options.
      rule: of `select`.
    """
    of = RULES[cfg.rule]

    def best(graded: Sequence[Graded], rule: select.Rule) -> list[Edit]:
        kept = select.choose(graded, passages, baseline, rule=rule, ties_seed=ties_seed)
        return [graded[i].edit for i in kept]

    if not of.weighed:
        own = select_rule(cfg, rule, edits=len(graded))
        return [Lesson(edit) for edit in best(graded, own)]
    prefer, parts, places = options(cfg), None, by_item(g.edit.item for g in graded)
    if prefer.shrink or (of.pairs and prefer.margin):
        parts = _parts(graded, len(passages))
        if parts is None or (prefer.shrink and not parts.edit):
            return []  # What is luck is not known, or all of it is.
    own = [[graded[i] for i in places[p]] for p in range(len(passages))]
    own = [_floored(edits) for edits in own]
    own = [_distinct(edits) for edits in own] if of.pairs else own
    items = [
        _measured(edits, passage, rule)
        for edits, passage in zip(own, passages, strict=True)
    ]
    if of.groups:
        return [found for item in items for found in _group(item, cfg, parts)]
    several = [g for edits in own for g in edits]
    winners = best(several, dataclasses.replace(rule, k_best=1))
    pairs = (_pair(edit, items[edit.item], prefer, parts) for edit in winners)
    return [pair for pair in pairs if pair is not None]


def options(cfg: ImitateConfig) -> PreferConfig:
    """What a rule other than "best" reads."""
    assert cfg.prefer is not None  # The config is refused without it.
    return cfg.prefer


def _parts(graded: Sequence[Graded], items: int) -> variance.Components | None:
    """What of the round's rewards is luck of the seeds; None where that is not seen."""
    rewards: list[list[tuple[float | None, ...]]] = [[] for _ in range(items)]
    for g in graded:
        rewards[g.edit.item].append(_had(g))
    return variance.anova(rewards) if reliability.is_separable(rewards) else None


def _had(graded: Graded) -> tuple[float | None, ...]:
    """Its rewards; None for an adapter that failed."""
    return tuple(map(reward_names.measured, graded.rewards))


def _able(graded: Graded) -> bool:
    """Whether something can be learned of it."""
    return graded.edit.imitable and not graded.out and graded.reward is not None


def _floored(graded: Sequence[Graded]) -> list[Graded]:
    """An item's edits, those whose adapters failed worth as much as its worst other.

    `reward_names.WORST` ranks them, and is no number to take a difference of. Where all
    failed nobody knows what they are worth.
    """
    failed = [_failed(g) for g in graded]
    real = [g for g, bad in zip(graded, failed, strict=True) if not bad and _able(g)]
    least = min((g.reward for g in real if g.reward is not None), default=None)
    return [
        dataclasses.replace(g, reward=least) if bad else g
        for g, bad in zip(graded, failed, strict=True)
    ]


def _failed(graded: Graded) -> bool:
    """Whether a failed adapter counts in its reward; at best of several it may not."""
    if graded.reward is None or reward_names.WORST not in graded.rewards:
        return False
    had = [reward for reward in _had(graded) if reward is not None]
    return not had or graded.reward < min(had)


def _distinct(graded: Sequence[Graded]) -> list[Graded]:
    """An item's edits with nothing left in that has no other to be held against.

    Equal texts are the first of them, with the rewards of all; a pair of them would
    have no lead, ever. What its prompt wrote alone is out.
    """
    alike: dict[tuple[str, str], list[Graded]] = {}
    for g in filter(_able, graded):
        alike.setdefault((g.edit.prompt, g.edit.text), []).append(g)
    texts = collections.Counter(prompt for prompt, _ in alike)
    found = []
    for g in graded:
        own = alike.get((g.edit.prompt, g.edit.text), [])
        first = bool(own) and own[0] is g and texts[g.edit.prompt] > 1
        found.append(_merged(own) if first else dataclasses.replace(g, out=True))
    return found


def _merged(alike: Sequence[Graded]) -> Graded:
    """Several edits of one text as one of all their seeds."""
    if len(alike) == 1:
        return alike[0]
    values = [(g.reward or 0.0, _seeds(g)) for g in alike]
    whole = math.fsum(reward * seeds for reward, seeds in values)
    return dataclasses.replace(
        alike[0],
        rewards=tuple(reward for g in alike for reward in g.rewards),
        reward=whole / sum(seeds for _, seeds in values),
    )


def _seeds(graded: Graded) -> int:
    return max(1, sum(reward is not None for reward in _had(graded)))


def _measured(
    graded: Sequence[Graded], passage: str | None, rule: select.Rule
) -> Measured:
    """What of an item's edits can be compared."""
    able = [g for g in graded if _able(g)]
    rewards = [g.reward for g in able if g.reward is not None]
    found = select.candidates(rewards, [g.edit.text for g in able], passage)
    return Measured(
        edits=[g.edit for g in able],
        rewards=rewards,
        bonus=[rule.bonus * (c.novelty or 0.0) for c in found],
        seeds=[_seeds(g) for g in able],
    )


def _pair(
    winner: Edit,
    item: Measured,
    cfg: PreferConfig,
    parts: variance.Components | None,
) -> Lesson | None:
    """The winner against its prompt's worst edit, if they are far enough apart."""
    values, best = item.values, item.edits.index(winner)
    others = [i for i, e in enumerate(item.edits) if e.prompt == winner.prompt]
    worst = min(others, key=values.__getitem__)
    gap, least = values[best] - values[worst], 0.0
    if parts is not None:
        both = 1 / item.seeds[best] + 1 / item.seeds[worst]
        least = cfg.margin * math.sqrt(parts.seed * both)
        if cfg.shrink:  # Errors are for what was measured; but is any of it there?
            drawn = item.shrunk(parts)
            gap = gap if drawn[best] > drawn[worst] else 0.0
    if gap <= 0 or gap < least:
        return None
    return Lesson(winner, other=item.edits[worst])


def _group(
    item: Measured, cfg: ImitateConfig, parts: variance.Components | None
) -> list[Lesson]:
    """All edits of an item with their advantages; none where they are equally good."""
    prefer = options(cfg)
    drawn = item.shrunk(parts) if prefer.shrink and parts is not None else item.values
    found = advantages(drawn, cfg.rule, prefer, measured=item.values)
    if not any(found):
        return []
    pairs = zip(item.edits, found, strict=True)
    return [Lesson(edit, advantage=advantage) for edit, advantage in pairs]


def advantages(
    values: Sequence[float],
    rule: str,
    cfg: PreferConfig,
    *,
    measured: Sequence[float] | None = None,
) -> list[float]:
    """What each edit has over its group, exactly 0 where all are equal, or for one.

    "rloo": over the mean of the others, which is E / (E - 1) of what it has over the
    mean. "grpo": over the mean, with `std` in standard deviations of the group.

    Args:
      values: what the edits are worth, shrunk or not.
      rule: "grpo" or "rloo".
      cfg: `std` and `tilt`.
      measured: what they were measured to be worth, whose deviation it is; so a group
        that is shrunk has smaller advantages. None: `values`.
    """
    if len(values) < 2 or max(values) == min(values):
        return [0.0] * len(values)
    tilted = _tilted(values, cfg.tilt)
    middle = math.fsum(tilted) / len(tilted)
    # Rounded, or an edit that is its group's mean would have a lead all the same.
    leads = [round(value - middle, select.SHARE_DIGITS) for value in tilted]
    if rule != GRPO:
        return [lead * len(values) / (len(values) - 1) for lead in leads]
    if not cfg.std:
        return leads
    spread = _deviation(_tilted(values if measured is None else measured, cfg.tilt))
    return [lead / (spread + _LEAST_SPREAD) for lead in leads]


def _tilted(values: Sequence[float], tilt: float) -> list[float]:
    """The values, or `exp(tilt * value)` over its mean."""
    if not tilt:
        return list(values)
    highest = max(values)  # Or it could overflow; it cancels.
    grown = [math.exp(tilt * (value - highest)) for value in values]
    middle = math.fsum(grown) / len(grown)
    return [value / middle for value in grown]


def _deviation(values: Sequence[float]) -> float:
    """Of the group as it is, not as a sample of another."""
    middle = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - middle) ** 2 for v in values) / len(values))
