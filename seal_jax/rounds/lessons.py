"""What a policy is to learn of a round's edits, by the outer rule; no jax.

`training.outer_rules` names the rules; here graded edits become lessons: edits to be
imitated, pairs of edits, or edits with advantages.
"""

import dataclasses
import math
from collections.abc import Sequence

from seal_jax.analysis import reliability, variance
from seal_jax.rewards import names as reward_names
from seal_jax.rounds import select
from seal_jax.rounds.graded import MEAN, Graded, by_item
from seal_jax.tasks.base import Edit
from seal_jax.training.outer_rules import BEST, GRPO, POSITIVE, RULES, PreferConfig
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
    most = min(_prefer(cfg).most, edits)
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
    item. Edits without a reward, those refused, and those that left a race teach
    nothing.

    Args:
      graded, passages, baseline, ties_seed: as of `select.choose`.
      cfg: the outer rule and its options.
      rule: of `select`.
    """
    of = RULES[cfg.rule]

    def best(rule: select.Rule) -> list[Edit]:
        kept = select.choose(graded, passages, baseline, rule=rule, ties_seed=ties_seed)
        return [graded[i].edit for i in kept]

    if not of.weighed:
        own = select_rule(cfg, rule, edits=len(graded))
        return [Lesson(edit) for edit in best(own)]
    prefer, parts, places = _prefer(cfg), None, by_item(g.edit.item for g in graded)
    if prefer.shrink or (of.pairs and prefer.margin):
        parts = _parts(graded, len(passages))
        if parts is None:
            return []  # What is luck is not known.
    items = [
        _measured([graded[i] for i in places[p]], passage, rule)
        for p, passage in enumerate(passages)
    ]
    if of.groups:
        return [found for item in items for found in _group(item, cfg, parts)]
    winners = best(dataclasses.replace(rule, k_best=1))
    pairs = (_pair(edit, items[edit.item], prefer, parts) for edit in winners)
    return [pair for pair in pairs if pair is not None]


def _prefer(cfg: ImitateConfig) -> PreferConfig:
    assert cfg.prefer is not None  # The config is refused without it.
    return cfg.prefer


def _parts(graded: Sequence[Graded], items: int) -> variance.Components | None:
    """What of the round's rewards is luck of the seeds; None where that is not seen."""
    rewards: list[list[tuple[float | None, ...]]] = [[] for _ in range(items)]
    for g in graded:
        rewards[g.edit.item].append(g.rewards)
    return variance.anova(rewards) if reliability.is_separable(rewards) else None


def _measured(
    graded: Sequence[Graded], passage: str | None, rule: select.Rule
) -> Measured:
    """What of an item's edits can be compared."""
    able = [g for g in graded if g.edit.imitable and not g.out and g.reward is not None]
    rewards = [g.reward for g in able if g.reward is not None]
    found = select.candidates(rewards, [g.edit.text for g in able], passage)
    return Measured(
        edits=[g.edit for g in able],
        rewards=rewards,
        bonus=[rule.bonus * (c.novelty or 0.0) for c in found],
        seeds=[max(1, sum(r is not None for r in g.rewards)) for g in able],
    )


def _pair(
    winner: Edit,
    item: Measured,
    cfg: PreferConfig,
    parts: variance.Components | None,
) -> Lesson | None:
    """The winner against the worst edit, if they are far enough apart."""
    values, best = item.values, item.edits.index(winner)
    worst = min(range(len(values)), key=values.__getitem__)
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
    prefer = _prefer(cfg)
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


# What a config may ask


def check(
    cfg: ImitateConfig,
    rule: select.Rule,
    *,
    reward: str,
    objective: str,
    races: bool,
    edits: int,
    seeds: int,
) -> None:
    """Refuses a rule that the round cannot follow.

    Args:
      cfg: the outer rule and its options.
      rule: of `select`.
      reward: what decides.
      objective: what an edit's seeds come to.
      races: whether edits leave a race early.
      edits: of an item.
      seeds: by how many the reward of an edit is measured.

    Raises:
      ValueError: see above.
    """
    if cfg.rule == BEST:
        return
    of, why, prefer = RULES[cfg.rule], f"imitate.rule={cfg.rule!r}", _prefer(cfg)
    if cfg.rule == POSITIVE:
        if rule.threshold is None and reward != reward_names.GRADE:
            raise ValueError(
                f"{why} keeps what beats the accuracy without an adapter, and "
                f"select.reward={reward!r} is none; set select.threshold to a number "
                "in quotes"
            )
        return
    if edits < 2:
        raise ValueError(
            f"{why} compares the edits of an item, and scale.edits={edits} are none to "
            "compare; use 2 or more"
        )
    if races:
        raise ValueError(
            f"select.halving leaves out the edits that it finds worst, and {why} "
            "learns from them; use ()"
        )
    wanted = [("shrink=True", "False")] if prefer.shrink else []
    if of.pairs and prefer.margin:
        wanted.append((f"margin={prefer.margin}", "0.0"))
    for given, none in wanted if objective != MEAN else ():
        raise ValueError(
            f"imitate.prefer.{given} goes by the error of a mean over seeds, and "
            f"select.objective={objective!r} is none; use {none}, or "
            f"select.objective={MEAN!r}"
        )
    for given, none in wanted if seeds < 2 else ():
        raise ValueError(
            f"imitate.prefer.{given} goes by how far seeds differ, and an edit's "
            f"reward is measured by {seeds}; use scale.seeds=2 or more with a reward "
            f"of adapters, or {none}"
        )
    limits = {
        "threshold": rule.threshold is not None,
        "max_copied": rule.max_copied not in (None, 1.0),
        "max_overlap": rule.max_overlap not in (None, 1.0),
    }
    for name in (name for name, there in limits.items() if of.groups and there):
        use = "'none'" if name == "threshold" else "1.0"
        raise ValueError(
            f"select.{name} leaves edits out, and {why} learns from all of an item; "
            f"use select.{name}={use}"
        )
