"""An edit's worth is the mean of its seeds, or the best of them, wherever it counts."""

import random

import pytest
import reward_runs

from seal_jax.analysis import agreement, halving
from seal_jax.report import read_rewards
from seal_jax.report.tables import agreement as agreement_table
from seal_jax.rounds import graded, select, summary
from seal_jax.rounds.graded import Graded, Trial
from seal_jax.rounds.settings import SelectConfig
from seal_jax.tasks.base import Edit


class By:
    def __init__(self, objective, reward="grade"):
        self.objective, self.reward = objective, reward


# By their means the first is better, by their best the second.
SEEDS = [(0.5, 0.6), (0.0, 0.9), (None, 0.1)]


def edits(objective):
    return [
        graded.with_measured(
            Graded(Edit(0, e, "", "x"), (), (), (), None),
            "grade",
            own,
            decides=By(objective),
        )
        for e, own in enumerate(SEEDS)
    ]


@pytest.mark.parametrize(
    ("objective", "worth", "kept"),
    [("mean", [0.55, 0.45, 0.1], 0), ("max", [0.6, 0.9, 0.1], 1)],
)
def test_ranking_threshold_race_and_report_agree(objective, worth, kept):
    found = edits(objective)
    assert [g.reward for g in found] == pytest.approx(worth)
    rule = select.Rule(threshold=0.58 if objective == "max" else 0.5)
    picked = select.choose(found, [None], [None], rule=rule, ties_seed="")
    assert picked == [kept]
    # Nothing reaches the threshold that the mean alone would not.
    high = select.Rule(threshold=0.7)
    above = select.choose(found, [None], [None], rule=high, ties_seed="")
    assert above == ([1] if objective == "max" else [])
    assert halving.survivors(SEEDS, 1, objective=objective) == [kept]
    line = summary.scores_line(found, picked, [None], 1)
    assert line["best_mean"] == pytest.approx(max(worth))
    assert line["kept_mean"] == pytest.approx(worth[kept])


def test_agreement_says_that_a_filter_picked_before(tmp_path):
    rows = [
        reward_runs.graded_row("p0", [grade], gradient=[grade]) | {"aside": False}
        for grade in (0.0, 0.5, 1.0)
    ]
    (whole,) = read_rewards.read(reward_runs.workdir(tmp_path, *rows))
    aside = rows[0] | {"aside": True, "measured": {"gradient": [0.1]}, "answers": []}
    (read,) = read_rewards.read(reward_runs.workdir(tmp_path, *rows, aside))
    assert not whole.sifted and read.sifted
    assert read.agreements == whole.agreements
    assert agreement_table.title(read) == (
        f"{agreement_table.title(whole)} (what a prefilter let through)"
    )
    names = ("grade", "gradient")
    graded = [
        Graded(Edit(0, e, "", ""), (), (), (), None, {n: (float(e),) for n in names})
        for e in range(3)
    ]
    for by, told in ((None, {}), ("gradient", {"prefilter": "gradient"})):
        (row,) = summary.agreement_line(names, 1, graded, prefilter=by)["agreement"]
        assert {k: row[k] for k in row if k == "prefilter"} == told


def test_a_failed_adapter_is_the_least_of_its_edit():
    """Its log-likelihood counts as less than any; the others' best stands."""
    trials = tuple(Trial(0, s, (), (), (), 1.0, s and "broke") for s in (0, 1))
    one = Graded(Edit(0, 0, "", "x"), trials, (), (), None)
    by = By("max", "log_likelihood")
    found = graded.with_measured(one, "log_likelihood", (-2.0, None), decides=by)
    assert found.reward == -2.0 and found.rewards[1] < -1e5


def test_the_agreement_of_other_rewards_is_with_the_best_seed(tmp_path):
    rng = random.Random(0)
    rows = [
        reward_runs.graded_row(
            f"p{p}", [rng.random() for _ in range(4)], gradient=[rng.random()]
        )
        | {"objective": "max", "text": f"text {e}"}
        for p in range(6)
        for e in range(5)
    ]
    (read,) = read_rewards.read(reward_runs.workdir(tmp_path, *rows))
    assert read.objective == "max"
    best = [[max(own) for own in edits] for edits in read.rewards["grade"]]
    gradient = [[own[0] for own in edits] for edits in read.rewards["gradient"]]
    assert read.agreements["gradient"] == agreement.agree(best, gradient)
    means = agreement.compare(read.rewards)
    assert means["gradient"] != read.agreements["gradient"]


def test_a_baseline_is_a_mean():
    """Held against the best of several seeds, luck alone would beat it."""
    given = {"compare": (), "k_best": 1, "ties": "first", "halving": ()}
    given |= {"novelty_bonus": 0.0, "max_copied": 1.0, "max_overlap": 1.0}
    given |= {"reward": "grade", "threshold": "baseline"}
    SelectConfig(**given, objective="mean")
    with pytest.raises(ValueError, match=r"threshold='baseline' is a mean") as caught:
        SelectConfig(**given, objective="max")
    assert "\n" not in str(caught.value)
    SelectConfig(**given | {"threshold": "0.5"}, objective="max")
    # A gradient's scale is no share: any number is a threshold for it.
    for name in ("gradient", "gradient_gold"):
        SelectConfig(**given | {"reward": name, "threshold": "250.0"})
    with pytest.raises(ValueError, match=r"select\.threshold"):
        SelectConfig(**given | {"reward": "log_likelihood", "threshold": "250.0"})
