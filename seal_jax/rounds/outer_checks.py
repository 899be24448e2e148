"""What an outer rule asks of a round, and what is to be said of it; no jax.

`lessons` makes the lessons; here a config that would make none, or others than it looks
to, is refused before anything runs.
"""

from seal_jax.generation.settings import Decoding
from seal_jax.rewards import names as reward_names
from seal_jax.rounds import select
from seal_jax.rounds.graded import MEAN
from seal_jax.rounds.lessons import options
from seal_jax.training.outer_rules import BEST, POSITIVE, RULES, Rule
from seal_jax.training.settings import ImitateConfig


def check(
    cfg: ImitateConfig,
    rule: select.Rule,
    *,
    reward: str,
    objective: str,
    races: int,
    edits: int,
    seeds: int,
) -> None:
    """Refuses a rule that the round cannot follow.

    Args:
      cfg: the outer rule and its options.
      rule: of `select`.
      reward: what decides.
      objective: what an edit's seeds come to.
      races: edits of an item that are left at the end of a race; 0: there is none.
      edits: of an item.
      seeds: by how many the reward of an edit is measured.

    Raises:
      ValueError: see above.
    """
    if cfg.rule == BEST:
        return
    of, why, prefer = RULES[cfg.rule], f"imitate.rule={cfg.rule!r}", options(cfg)
    if cfg.rule == POSITIVE:
        _check_positive(
            *(why, rule, min(prefer.most, edits)),
            reward=reward,
            objective=objective,
            races=races,
        )
        _check_ignored(why, rule, of)
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
    _check_whole(why, rule, of)
    _check_ignored(why, rule, of)


def _check_positive(
    why: str, rule: select.Rule, most: int, *, reward: str, objective: str, races: int
) -> None:
    """Refuses what "positive", which keeps up to `most` edits, cannot go by."""
    if rule.threshold is None:
        wrong = {
            f"select.reward={reward!r}": reward != reward_names.GRADE,
            f"select.objective={objective!r}": objective != MEAN,
        }
        for given in (given for given, there in wrong.items() if there):
            raise ValueError(
                f"{why} keeps what beats the accuracy without an adapter, a mean, and "
                f"{given} is none; set select.threshold to a number in quotes"
            )
    if races and races < most:
        raise ValueError(
            f"select.halving keeps {races} edits of an item, and {why} learns from up "
            f"to {most} (imitate.prefer.most); keep so many, or use most={races}"
        )


def _check_whole(why: str, rule: select.Rule, of: Rule) -> None:
    """Refuses limits where all edits of an item are learned from."""
    limits = {
        "threshold": (rule.threshold, None, "'none'"),
        "max_copied": (rule.max_copied, 1.0, "1.0"),
        "max_overlap": (rule.max_overlap, 1.0, "1.0"),
    }
    for name, (value, none, use) in limits.items():
        if of.groups and value not in (None, none):
            raise ValueError(
                f"select.{name}={value!r} leaves edits out, and {why} learns from all "
                f"of an item; use select.{name}={use}"
            )


def _check_ignored(why: str, rule: select.Rule, of: Rule) -> None:
    """Refuses what would look as if it did something."""
    overlap = of.pairs and rule.max_overlap not in (None, 1.0)
    ignored = [
        ("k_best", rule.k_best, rule.k_best != 1, "1"),
        ("max_overlap", rule.max_overlap, overlap, "1.0"),
        ("ties", rule.ties, of.groups and rule.ties != "first", "'first'"),
    ]
    for name, value, there, use in ignored:
        if there:
            raise ValueError(
                f"select.{name}={value!r} chooses among several best edits, and {why} "
                f"does not; use {use}"
            )


# What is said at the start


def notes(cfg: ImitateConfig, writing: Decoding, *, two_steps: bool) -> list[str]:
    """Lines on where a rule holds only nearly.

    Args:
      cfg: the outer rule.
      writing: how edits are drawn.
      two_steps: whether each is written by a strategy of its own.
    """
    of, why, lines = RULES[cfg.rule], f"imitate.rule={cfg.rule!r}", []
    other = {
        f"propose.temperature={writing.temperature}": writing.temperature != 1,
        f"propose.top_p={writing.top_p}": writing.top_p < 1,
        f"propose.top_k={writing.top_k}": writing.top_k > 0,
    }
    given = ", ".join(name for name, there in other.items() if there)
    if of.groups and given:
        lines.append(
            f"{why} takes edits for samples of the policy at temperature 1, and {given}"
            " draws others: its gradient is biased"
        )
    if of.groups and cfg.data == "accumulate":
        lines.append(
            f"{why} learns from edits of the policy itself, and imitate.data="
            "'accumulate' keeps those of earlier ones: its gradient is biased"
        )
    if of.pairs and two_steps:
        lines.append(
            f"{why} pairs edits of one prompt, and each strategy has its own: an item "
            "teaches only where fewer strategies were listed than edits"
        )
    return lines
