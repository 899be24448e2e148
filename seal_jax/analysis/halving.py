"""Successive halving over the edits of a passage: seeds go where they can decide.

Every edit is trained with a few seeds; the better half goes on and gets more, and so
on (Karnin, Koren and Somekh, 2013, Almost optimal exploration in multi-armed bandits).
Here the schedule and its cost, one race on rewards already measured, and two ways to
grade a schedule on such rewards: on seeds it did not see, which assumes nothing, and on
resampled passages, whose true values are known and whose seeds never run out.

E edits and S seeds of one passage, X races at once, K picks. Missing rewards are nan in
arrays, None in sequences.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

type Rewards = Sequence[Sequence[Sequence[float | None]]]


@dataclasses.dataclass(frozen=True)
class Rung:
    """The edits still in the race get `seeds` seeds in total; the best `keep` stay."""

    seeds: int
    keep: int


type Schedule = tuple[Rung, ...]


def uniform(seeds: int, *, picks: int = 1) -> Schedule:
    """The same seeds for every edit."""
    return (Rung(seeds, picks),)


def schedule(
    edits: int, *, first: int = 1, factor: int = 2, picks: int = 1
) -> Schedule:
    """Halves the edits (rounded up) and multiplies their seeds until `picks` are left.

    Args:
      first: seeds of every edit.
      factor: seeds in total grow so much from rung to rung.

    Returns:
      for 5 edits: 1 seed, 3 stay; 2 seeds, 2 stay; 4 seeds, 1 stays.
    """
    if not (1 <= picks <= edits and first >= 1 and factor >= 2):
        raise ValueError(
            f"edits={edits}, picks={picks}, first={first}, factor={factor}: needs "
            "1 <= picks <= edits, first >= 1 and factor >= 2; change that one"
        )
    rungs, seeds, left = [], first, edits
    while not rungs or left > picks:
        left = max(picks, math.ceil(left / 2))
        rungs.append(Rung(seeds, left))
        seeds *= factor
    return tuple(rungs)


def from_pairs(pairs: Sequence[Sequence[int]]) -> Schedule:
    """The schedule that a config writes as ((seeds, keep), ...).

    Raises:
      ValueError: not pairs of positive whole numbers. Whether they make a schedule for
        so many edits, `check` says.
    """
    rungs = []
    for pair in pairs:
        if len(pair) != 2 or any(type(n) is not int or n < 1 for n in pair):
            raise ValueError(
                f"{tuple(pair)} must be a pair (seeds, keep) of whole numbers of at "
                "least 1; give ((1, 3), (2, 1)) or the like"
            )
        rungs.append(Rung(*pair))
    return tuple(rungs)


def check(plan: Schedule, *, edits: int, seeds: int) -> None:
    """Refuses a schedule that is none for so many edits of at most `seeds` seeds.

    Raises:
      ValueError: as `trainings`, or the schedule asks for more seeds.
    """
    trainings(plan, edits)
    if plan[-1].seeds > seeds:
        raise ValueError(
            f"{plan[-1]} needs {plan[-1].seeds} seeds of {seeds}; shorten the schedule"
        )


def trainings(plan: Schedule, edits: int) -> int:
    """What a schedule costs one passage of `edits` edits.

    Raises:
      ValueError: not a schedule of so many edits.
    """
    total, spent, left = 0, 0, edits
    for rung in plan:
        if rung.seeds <= spent or not 1 <= rung.keep <= left:
            raise ValueError(
                f"{rung} after {spent} seeds of {left} edits: seeds must grow and keep "
                "be between 1 and the edits left; change the schedule"
            )
        total += left * (rung.seeds - spent)
        spent, left = rung.seeds, rung.keep
    if not plan:
        raise ValueError("the schedule must not be empty; give at least one Rung")
    return total


def survivors(
    rewards: Sequence[Sequence[float | None]], keep: int, *, objective: str = "mean"
) -> list[int]:
    """Indices of the `keep` edits with the highest mean, or "max", best first.

    The step of a race as it runs: train, call this, train the survivors on. Of equal
    ones the first edit; an edit without any measured reward comes last.
    """
    if objective == "max":
        rewards = [
            [max((r for r in own if r is not None), default=None)] for own in rewards
        ]
    plan = uniform(
        max((len(edit_rewards) for edit_rewards in rewards), default=0) or 1, picks=keep
    )
    trainings(plan, len(rewards))
    rewards_ES = _padded(rewards)
    if not rewards_ES.size:
        return list(range(keep))
    return [int(e) for e in race(rewards_ES[None], plan)[0]]


def race(rewards_XES: np.ndarray, plan: Schedule) -> np.ndarray:
    """Runs a schedule on rewards that are already there; seed s is the s-th column.

    Returns:
      picks_XK, indices of edits, best first. Ties as in `survivors`.

    Raises:
      ValueError: fewer seeds than the schedule asks for, or as `trainings`.
    """
    races, edits, seeds = rewards_XES.shape
    check(plan, edits=edits, seeds=seeds)
    left_XK = np.broadcast_to(np.arange(edits), (races, edits))
    for rung in plan:
        means_XE = _means(rewards_XES[:, :, : rung.seeds])
        means_XK = np.take_along_axis(means_XE, left_XK, 1)
        # A mean is a quotient: equal shares may differ in the last bit.
        score_XK = np.where(np.isnan(means_XK), -np.inf, np.round(means_XK, 12))
        order_XK = np.lexsort((left_XK, -score_XK), axis=1)[:, : rung.keep]
        left_XK = np.take_along_axis(left_XK, order_XK, 1)
    return left_XK


# Grading a schedule


def held_out(
    rewards: Rewards,
    plan: Schedule,
    *,
    of: Rewards | None = None,
    draws: int = 400,
) -> list[float | None]:
    """Per passage, what the picks gain over the mean edit on seeds not raced with.

    Seeds are shuffled `draws` times: the race sees the first ones, the others grade
    it, which is unbiased whatever the rewards are. Edits are shuffled too, so that ties
    favour none.

    Args:
      of: the rewards that grade the picks, of the same trainings; `rewards` themselves
        if None.

    Returns:
      a mean gain per passage; None where no pick has a reward left to be graded by, as
      where nothing was measured. The same for the same rewards.

    Raises:
      ValueError: a passage has no seed left to grade by; or `of` has another shape.
    """
    rng = np.random.default_rng(0)
    gains: list[float | None] = []
    for passage, judge in zip(rewards, rewards if of is None else of, strict=True):
        race_ES, judge_ES = _padded(passage), _padded(judge)
        edits, seeds = race_ES.shape
        if race_ES.shape != judge_ES.shape:
            raise ValueError(
                f"of has {judge_ES.shape} edits and seeds for {race_ES.shape}: it must "
                "be of the same trainings"
            )
        if not race_ES.size or plan[0].keep > edits:
            gains.append(None)
            continue
        seen = plan[-1].seeds
        if seeds <= seen:
            raise ValueError(
                f"{plan[-1]} leaves no seed of {seeds} to grade by; shorten the "
                "schedule or train more seeds"
            )
        e_XE = rng.permuted(np.tile(np.arange(edits), (draws, 1)), axis=1)
        s_XS = rng.permuted(np.tile(np.arange(seeds), (draws, 1)), axis=1)
        at = (e_XE[:, :, None], s_XS[:, None, :])
        value_XE = _means(judge_ES[at][:, :, seen:])
        picks_XK = race(race_ES[at][:, :, :seen], plan)
        gain_X = _gain(value_XE, picks_XK)
        ok = ~np.isnan(gain_X)
        gains.append(float(gain_X[ok].mean()) if ok.any() else None)
    return gains


@dataclasses.dataclass(frozen=True)
class Grade:
    """How well a schedule picks, by the true values of resampled passages."""

    trainings: int  # of each passage
    gain: float  # of the picks over the mean edit
    perfect: float  # of the picks that the true values would give
    share: float | None  # gain / perfect


def resample(
    rewards: Rewards,
    plan: Schedule,
    *,
    edit: float,
    seed: float,
    edits: int = 5,
    draws: int = 400,
) -> Grade:
    """Races on passages made from measured ones, whose true values are known.

    Each measured passage gives `draws` new ones. An edit's true value is a measured
    edit's deviation from its passage, shrunk to the variance `edit`; its luck at a seed
    is a measured deviation from an edit's mean, stretched to the variance `seed`. Both
    are drawn from those of all passages: the few of one passage would by chance spread
    too little here and too much there, which flatters one seed. So the shapes are the
    measured ones, but that all passages are equally noisy is assumed.

    Args:
      edit, seed: variance components, as `variance.anova` estimates them.

    Raises:
      ValueError: a schedule that is none for so many edits, or rewards without spread
        to draw from where a variance is above 0.
    """
    cost = trainings(plan, edits)
    values, luck = _deviations(rewards)
    stretches = _stretch("edit", values, edit), _stretch("seed", luck, seed)
    rng = np.random.default_rng(0)
    gain, perfect = [], []
    for _ in rewards:
        true_XE = _drawn(rng, values, (draws, edits)) * stretches[0]
        luck_XES = _drawn(rng, luck, (draws, edits, plan[-1].seeds)) * stretches[1]
        picks_XK = race(true_XE[:, :, None] + luck_XES, plan)
        gain.append(_gain(true_XE, picks_XK).mean())
        best_XK = race(true_XE[:, :, None], uniform(1, picks=plan[-1].keep))
        perfect.append(_gain(true_XE, best_XK).mean())
    top = float(np.mean(perfect))
    mean_gain = float(np.mean(gain))
    return Grade(cost, mean_gain, top, mean_gain / top if top > 0 else None)


def uniform_trainings(
    gain: float, curve: Sequence[tuple[float, float]]
) -> float | None:
    """Trainings at which a curve of (trainings, gain), cheapest first, reaches `gain`.

    Linear in between; None beyond its ends, or where it does not rise.
    """
    x, y = np.array(curve, float).T
    y = np.maximum.accumulate(y)
    if y[0] == y[-1] or not y[0] <= gain <= y[-1]:
        return None
    return float(np.interp(gain, y, x))


def _gain(value_XE: np.ndarray, picks_XK: np.ndarray) -> np.ndarray:
    """Mean value of the picks minus that of all edits; nan where a pick has none."""
    return np.take_along_axis(value_XE, picks_XK, 1).mean(1) - _means(value_XE)


def _deviations(rewards: Rewards) -> tuple[np.ndarray, np.ndarray]:
    """Of edits' means from their passage's; of rewards from their edit's mean."""
    values, luck = [np.zeros(0)], [np.zeros(0)]
    for passage in rewards:
        samples = [
            np.array([r for r in sample if r is not None], float) for sample in passage
        ]
        samples = [sample for sample in samples if len(sample)]
        means = np.array([sample.mean() for sample in samples])
        if len(samples) > 1:
            values.append((means - means.mean()) * _unbias(len(samples)))
        luck += [
            (sample - sample.mean()) * _unbias(len(sample))
            for sample in samples
            if len(sample) > 1
        ]
    return np.concatenate(values), np.concatenate(luck)


def _drawn(rng: np.random.Generator, pool: np.ndarray, shape) -> np.ndarray:
    """With replacement; zeros from an empty pool."""
    return rng.choice(pool, shape) if len(pool) else np.zeros(shape)


def _unbias(count: int) -> float:
    """Deviations from a mean of `count` are too small by this."""
    return math.sqrt(count / (count - 1))


def _stretch(name: str, deviations: np.ndarray, variance: float) -> float:
    """Factor that gives the deviations (of mean 0) this variance."""
    if variance == 0:
        return 0.0
    now = float((deviations**2).mean()) if len(deviations) else 0.0
    if not (now > 0 and variance > 0):
        raise ValueError(
            f"{name}={variance}: must be a variance, and 0 for deviations of variance "
            f"{now}; take it from anova of the same rewards"
        )
    return math.sqrt(variance / now)


def _padded(passage: Sequence[Sequence[float | None]]) -> np.ndarray:
    """rewards_ES, nan where not measured or shorter than the longest."""
    rewards_ES = np.full((len(passage), max(map(len, passage), default=0)), np.nan)
    for e, edit_rewards in enumerate(passage):
        rewards_ES[e, : len(edit_rewards)] = [
            np.nan if r is None else r for r in edit_rewards
        ]
    return rewards_ES


def _means(values: np.ndarray) -> np.ndarray:
    """Over the last axis, of what is not nan; nan where all is."""
    measured = ~np.isnan(values)
    count = measured.sum(-1)
    total = np.where(measured, values, 0.0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
