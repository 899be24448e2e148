"""From graded edits to lessons, by every outer rule."""

import dataclasses
import math

import numpy as np
import pytest
import tiny_model

from seal_jax.analysis import variance
from seal_jax.generation.settings import Decoding
from seal_jax.rewards import names as reward_names
from seal_jax.rounds import lessons, outer_checks, select
from seal_jax.rounds.graded import Graded
from seal_jax.tasks.base import Edit
from seal_jax.training.outer_rules import RULES, OuterRates, PreferConfig
from seal_jax.training.settings import ImitateConfig, LoraConfig

PREFER = {
    **tiny_model.OPTIONAL["imitate.prefer"],
    "rates": OuterRates(0.0, 2e-3, 0.0, 0.0, 0.0),
}


def config(rule, **changes):
    prefer = {k: changes.pop(k) for k in list(changes) if k in PREFER}
    return ImitateConfig(
        **{
            "start": "previous",
            "data": "replace",
            "lora": LoraConfig(("q_proj",), 2, 4.0),
            "learning_rate": 1e-2,
            "schedule": "linear",
            "epochs": 1,
            "clip": 1.0,
            "batch": 4,
            "micro_batch": 2,
            "length_multiple": 8,
            "rule": rule,
            "prefer": PreferConfig(**(PREFER | prefer)),
        }
        | changes
    )


def graded(rewards, *, texts=None, prompts=None, refused=(), out=()):
    """`rewards[item][edit][seed]`; None where an edit was not scored at all."""
    found = []
    for p, row in enumerate(rewards):
        for e, seeds in enumerate(row):
            text = f"text {e}" if texts is None else texts[e]
            prompt = "" if prompts is None else prompts[e]
            edit = Edit(
                p, e, prompt, text, refused="blank" if (p, e) in refused else None
            )
            value = None if seeds is None else sum(seeds) / len(seeds)
            own = tuple(seeds or ())
            found.append(Graded(edit, (), (), own, value, out=(p, e) in out))
    return found


def choose(rule, rewards, *, baseline=0.0, passage="p", ties="", options=None, **more):
    shown = {
        k: more.pop(k) for k in ("texts", "prompts", "refused", "out") if k in more
    }
    return lessons.choose(
        graded(rewards, **shown),
        [passage] * len(rewards),
        [baseline] * len(rewards),
        cfg=config(rule, **(options or {})),
        rule=select.Rule(**({"digits": select.SHARE_DIGITS} | more)),
        ties_seed=ties,
    )


def places(found):
    return [
        (one.edit.item, one.edit.edit)
        if one.other is None
        else (one.edit.item, one.edit.edit, one.other.edit)
        for one in found
    ]


def one_seed(*rows):
    return [[None if r is None else (r,) for r in row] for row in rows]


REWARDS = one_seed([0.2, 0.6, 0.4], [0.5, 0.5, 0.5], [0.0, None, 0.9])


# Of each rule what it learns of REWARDS where the baseline is 0.3: a row for a rule.
CONTRACT = {
    "best": [(0, 1), (1, 0), (2, 2)],
    "positive": [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 2)],
    "dpo": [(0, 1, 0), (2, 2, 0)],
    "ipo": [(0, 1, 0), (2, 2, 0)],
    "grpo": [(0, 0), (0, 1), (0, 2), (2, 0), (2, 2)],
    "rloo": [(0, 0), (0, 1), (0, 2), (2, 0), (2, 2)],
}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_its_lessons(rule):
    """Equal edits are no pair and no group."""
    found = choose(rule, REWARDS, baseline=0.3)
    assert places(found) == CONTRACT[rule]
    kept = [(one.edit.item, one.edit.edit) for one in found if one.kept]
    if RULES[rule].groups:
        assert kept == [(0, 1), (2, 2)]  # (0, 2) is its group's mean.
    else:
        assert kept == [place[:2] for place in CONTRACT[rule]]


@pytest.mark.parametrize("rule", RULES)
def test_what_was_refused_or_left_or_not_scored_teaches_nothing(rule):
    rewards = one_seed([0.2, 0.9, 0.1, 0.5, None])
    found = choose(rule, rewards, refused={(0, 1)}, out={(0, 2)})
    taught = {one.edit.edit for one in found}
    taught |= {one.other.edit for one in found if one.other is not None}
    assert taught == {"best": {3}}.get(rule, {0, 3})


@pytest.mark.parametrize("rule", [r for r, of in RULES.items() if of.weighed])
def test_one_edit_or_equal_ones_teach_nothing(rule):
    assert choose(rule, one_seed([0.7])) == []
    assert choose(rule, one_seed([0.7, None])) == []
    # 0.1 + 0.2 is not 0.3 to the last bit, and is the same share.
    assert choose(rule, one_seed([0.1 + 0.2, 0.3, 0.3])) == []


def test_positive_keeps_so_many_and_the_best_of_them():
    rewards = one_seed([0.5, 0.9, 0.7, 0.3])
    for most, kept in ((1, [1]), (2, [1, 2]), (9, [1, 2, 0])):
        found = choose("positive", rewards, baseline=0.3, options={"most": most})
        assert [one.edit.edit for one in found] == kept
    found = choose("positive", rewards, baseline=0.3, threshold=0.7)
    assert [one.edit.edit for one in found] == [1, 2]
    # Without a baseline nobody knows.
    assert choose("positive", rewards, baseline=None) == []


# Pairs


@pytest.mark.parametrize("rule", ["dpo", "ipo"])
def test_pairs_that_luck_may_have_made_are_dropped(rule):
    """Their distance against the errors of two means, of all seeds together."""
    rewards = [
        [(0.1, 0.3), (0.5, 0.7)],
        [(0.2, 0.4), (0.3, 0.5)],
        [(0.9, 0.9), (0.0, 0.2)],
    ]
    seed = variance.anova(rewards).seed
    error = math.sqrt(seed * (1 / 2 + 1 / 2))
    for gap, kept in ((0.1, [0, 1, 2]), (0.4, [0, 2]), (0.8, [2]), (0.9, [])):
        margin = {"margin": (gap - 1e-6) / error}
        found = choose(rule, rewards, options=margin)
        assert [one.edit.item for one in found] == kept
    # Without seeds nothing says how far luck reaches.
    assert choose(rule, one_seed([0.1, 0.9]), options={"margin": 1.0}) == []
    assert len(choose(rule, one_seed([0.1, 0.9]))) == 1


def test_the_winner_is_what_select_keeps_and_the_loser_the_worst():
    rewards = one_seed([0.5, 0.9, 0.9, 0.1, 0.1])
    texts = ["a b c d", "p q r s t", "p q r s", "x y z w", "x y z w v"]
    more = {"texts": texts, "passage": "p q r s"}
    first = choose("dpo", rewards, **more)
    assert places(first) == [(0, 1, 3)]
    assert places(choose("dpo", rewards, ties="shortest", **more)) == [(0, 1, 3)]
    short = choose("dpo", rewards, **(more | {"ties": ""}), k_best=3)
    assert places(short) == [(0, 1, 3)]
    # What is copied from the passage is no winner, and may lose.
    assert places(choose("dpo", rewards, **more, max_copied=0.4)) == [(0, 0, 3)]
    # The bonus for novelty counts on both sides.
    assert places(choose("dpo", rewards, **more, bonus=9.0)) == [(0, 0, 2)]
    assert choose("dpo", rewards, **more, threshold=0.95) == []


def test_equal_texts_are_one_edit_of_all_their_seeds():
    """Three equal texts have no lead over each other, whatever they earned."""
    assert choose("dpo", one_seed([0.2, 0.9, 0.5]), texts=["same"] * 3) == []
    # The two come to 0.45: neither the best nor the worst, though each copy was.
    rewards = one_seed([0.9, 0.6, 0.0, 0.3])
    texts = ["same", "other", "same", "third"]
    assert places(choose("dpo", rewards, texts=texts)) == [(0, 1, 3)]
    # ... and as a winner 0.7, known by four seeds.
    rewards = [[(0.9, 0.9), (0.6, 0.6), (0.5, 0.5)]]
    item = lessons._distinct(graded(rewards, texts=["a", "b", "a"]))
    assert item[0].reward == pytest.approx(0.7)
    assert item[0].rewards == (0.9, 0.9, 0.5, 0.5)
    assert [g.out for g in item] == [False, False, True]
    # A group has each as it was drawn.
    assert len(choose("rloo", one_seed([0.9, 0.1, 0.5]), texts=["a", "a", "b"])) == 3


@pytest.mark.parametrize(("edits", "share"), [(3, 0.11), (5, 0.27), (15, 0.80)])
def test_how_many_pairs_of_pure_luck_pass_a_margin_of_two(edits, share):
    """As `PreferConfig` says: best and worst are chosen, their gap is a range."""
    noise = np.random.default_rng(0).normal(size=(1000, edits, 2)).tolist()
    found = choose(
        "dpo",
        noise,
        options={"margin": 2.0},
        texts=[f"text {e}" for e in range(edits)],
    )
    assert len(found) / 1000 == pytest.approx(share, abs=0.035)


@pytest.mark.parametrize("rule", ["dpo", "ipo"])
def test_a_pair_is_of_one_prompt(rule):
    rewards = one_seed([0.9, 0.5, 0.1, 0.8, 0.0])
    prompts = ["p", "p", "q", "q", "alone"]
    assert places(choose(rule, rewards, prompts=prompts)) == [(0, 0, 1)]
    # The best was written alone: the next that has a rival wins.
    prompts = ["alone", "p", "q", "q", "p"]
    assert places(choose(rule, rewards, prompts=prompts)) == [(0, 3, 2)]
    assert choose(rule, rewards, prompts=list("abcde")) == []


# Adapters that failed, where a reward has no 0


FAILED = reward_names.WORST


@pytest.mark.parametrize("rule", [r for r, of in RULES.items() if of.weighed])
def test_a_failed_adapter_is_no_number(rule):
    """Its edit counts as its item's worst other, and luck is that of the rest."""
    rewards = [
        [(-1.0, -1.1), (-2.0, -2.1), (FAILED, -0.5)],
        [(-1.0, -1.2), (-1.5, -1.6), (-3.0, -2.9)],
    ]
    options = {"shrink": True, "margin": 1.0} | (
        {"std": False} if rule == "grpo" else {}
    )
    found = choose(rule, rewards, options=options)
    if RULES[rule].pairs:
        assert places(found) == [(0, 0, 1), (1, 0, 2)]
        return
    first = [one for one in found if one.edit.item == 0]
    assert first[1].advantage == pytest.approx(first[2].advantage, rel=0.1)
    assert first[0].advantage > 0 > first[2].advantage > -2
    # Where all failed, nobody knows.
    assert choose(rule, [[(FAILED, FAILED), (FAILED, -0.5)]]) == []


def test_the_best_of_several_seeds_may_do_without_the_failed_one():
    (edit, other) = graded([[(FAILED, -0.5), (-1.0, -1.0)]])[:2]
    best = dataclasses.replace(edit, reward=-0.5)
    assert lessons._floored([best, other]) == [best, other]
    assert lessons._floored([edit, other])[0].reward == -1.0


# Groups


def test_advantages_are_those_of_the_papers():
    prefer, values = config("rloo").prefer, [0.9, 0.1, 0.5, 0.4, 0.2]
    found = lessons.advantages(values, "rloo", prefer)
    for i, value in enumerate(values):
        others = [v for j, v in enumerate(values) if j != i]
        assert found[i] == pytest.approx(value - np.mean(others), rel=1e-12)
    over_mean = np.array(values) - np.mean(values)
    np.testing.assert_allclose(found, 5 / 4 * over_mean)
    scaled = lessons.advantages(values, "grpo", prefer)
    np.testing.assert_allclose(scaled, over_mean / (np.std(values) + 1e-4))
    plain = config("grpo", std=False).prefer
    np.testing.assert_allclose(lessons.advantages(values, "grpo", plain), over_mean)


@pytest.mark.parametrize("rule", ["grpo", "rloo"])
def test_a_tilt_counts_the_best_edits_most(rule):
    prefer, values = config(rule, tilt=3.0, std=False).prefer, [0.9, 0.1, 0.5]
    grown = np.exp(3 * np.array(values))
    want = grown / grown.mean() - 1
    want *= 3 / 2 if rule == "rloo" else 1
    np.testing.assert_allclose(lessons.advantages(values, rule, prefer), want)
    # Far beyond what an exponential takes.
    steep = config(rule, tilt=1000.0, std=False).prefer
    far = lessons.advantages([900.0, 0.0], rule, steep)
    np.testing.assert_allclose(far, np.array([1, -1]) * (2 if rule == "rloo" else 1))


# Shrinkage


NOISE = [
    # Seeds differ and edits do not: the estimate of what edits are worth is 0.
    [(0.0, 1.0), (1.0, 0.0), (0.2, 0.9)],
    [(0.9, 0.1), (0.1, 0.8), (1.0, 0.0)],
]
SIGNAL = [[(0.0, 0.1), (0.9, 0.8), (0.5, 0.6)], [(0.2, 0.2), (0.7, 0.6), (0.9, 0.9)]]


@pytest.mark.parametrize("rule", [r for r, of in RULES.items() if of.weighed])
def test_where_nothing_is_reliable_nothing_is_learned(rule):
    assert variance.anova(NOISE).edit_raw < 0
    assert choose(rule, NOISE, options={"shrink": True}) == []
    assert choose(rule, NOISE) != []
    assert choose(rule, SIGNAL, options={"shrink": True}) != []


@pytest.mark.parametrize("rule", [r for r, of in RULES.items() if of.weighed])
def test_novelty_teaches_nothing_where_rewards_are_not_reliable(rule):
    more = {"texts": ["p q r", "a b c", "d e f"], "passage": "p q r", "bonus": 0.5}
    assert choose(rule, NOISE, options={"shrink": True}, **more) == []
    assert choose(rule, NOISE, **more) != []


def test_rewards_are_drawn_to_their_mean_by_what_of_them_is_luck():
    parts = variance.anova(SIGNAL)
    share = variance.reliability(parts, 2)
    assert share is not None and 0.5 < share < 1
    whole = choose("rloo", SIGNAL)
    drawn = choose("rloo", SIGNAL, options={"shrink": True})
    ratios = [
        a.advantage / b.advantage
        for a, b in zip(drawn, whole, strict=True)
        if b.advantage
    ]
    np.testing.assert_allclose(ratios, share, rtol=1e-9)
    # In standard deviations of what was measured, so that they do not cancel.
    whole = choose("grpo", SIGNAL)
    drawn = choose("grpo", SIGNAL, options={"shrink": True})
    got = [one.advantage for one in drawn]
    np.testing.assert_allclose(got, [share * one.advantage for one in whole], rtol=1e-9)


def test_an_edit_of_more_seeds_is_drawn_less():
    rewards = [[(0.0, 0.1, 0.0, 0.1), (0.9, 0.8)], *SIGNAL]
    parts = variance.anova(rewards)
    found = choose("rloo", rewards, options={"shrink": True})[:2]
    shares = [variance.reliability(parts, seeds) for seeds in (4, 2)]
    leads = np.array([0.05, 0.85]) - 0.45
    values = 0.45 + np.array(shares) * leads
    want = 2 * (values - values.mean())
    np.testing.assert_allclose([one.advantage for one in found], want, rtol=1e-9)


# What a config may ask


ROUND = {
    "reward": "grade",
    "objective": "mean",
    "races": False,
    "edits": 5,
    "seeds": 2,
}


def check(rule, *, chosen=None, **given):
    told = {key: given.pop(key, value) for key, value in ROUND.items()}
    outer_checks.check(config(rule, **given), select.Rule(**(chosen or {})), **told)


@pytest.mark.parametrize("rule", RULES)
def test_a_round_that_allows_it_is_not_refused(rule):
    check(rule, shrink=True, margin=2.0)
    check(rule, seeds=1)
    high = {"threshold": 0.5} if rule == "positive" else {}
    check(rule, objective="max", chosen=high)
    check(rule, chosen={"ties": "shortest"} if not RULES[rule].groups else {})
    if not RULES[rule].weighed:
        check(rule, edits=1, seeds=1, races=True, chosen={"max_copied": 0.5})


REFUSED = [
    ("dpo", {"edits": 1}, "compares the edits of an item, and scale.edits=1"),
    ("rloo", {"edits": 1}, "imitate.rule='rloo' compares"),
    ("ipo", {"races": True}, "select.halving leaves out the edits"),
    ("grpo", {"seeds": 1, "shrink": True}, "imitate.prefer.shrink=True goes by"),
    ("dpo", {"seeds": 1, "margin": 2.0}, "imitate.prefer.margin=2.0 goes by"),
    ("rloo", {"objective": "max", "shrink": True}, "select.objective='max' is none"),
    ("ipo", {"objective": "max", "margin": 2.0}, "use 0.0, or select.objective='mean'"),
    ("grpo", {"chosen": {"threshold": 0.5}}, "use select.threshold='none'"),
    ("rloo", {"chosen": {"max_copied": 0.5}}, "use select.max_copied=1.0"),
    ("grpo", {"chosen": {"max_overlap": 0.5}}, "use select.max_overlap=1.0"),
    ("positive", {"reward": "rubric"}, "set select.threshold to a number"),
    ("positive", {"objective": "max"}, "select.objective='max' is none; set select."),
    ("positive", {"races": 2}, "imitate.rule='positive' learns from up to 5"),
    ("positive", {"chosen": {"k_best": 2}}, "select.k_best=2 chooses among several"),
    ("dpo", {"chosen": {"k_best": 2}}, "imitate.rule='dpo' does not; use 1"),
    ("ipo", {"chosen": {"max_overlap": 0.5}}, "select.max_overlap=0.5 chooses"),
    ("rloo", {"chosen": {"ties": "random"}}, "does not; use 'first'"),
]


@pytest.mark.parametrize(("rule", "given", "said"), REFUSED)
def test_what_a_round_cannot_do_is_refused_in_a_line(rule, given, said):
    with pytest.raises(ValueError) as caught:
        check(rule, **given)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_settings_that_contradict_are_refused():
    with pytest.raises(ValueError, match=r"imitate\.rule='drpo' must be one of"):
        config("drpo")
    with pytest.raises(ValueError, match=r"'dpo' needs the group config\.imitate\.pre"):
        config("dpo", prefer=None)
    config("best", prefer=None)
    for rule in ("grpo", "rloo"):
        with pytest.raises(ValueError, match="policy that did not write the edits"):
            config(rule, start="base")
    config("dpo", start="base")
    with pytest.raises(ValueError, match=r"imitate\.prefer\.beta=0\.0 must be"):
        config("best", beta=0.0)


def test_a_rule_has_a_rate_of_its_own():
    assert config("dpo").by_rule.learning_rate == 2e-3
    assert config("ipo").by_rule.learning_rate == 1e-2
    assert config("best").by_rule == config("best")
    assert dataclasses.replace(config("best"), prefer=None).by_rule.learning_rate == (
        1e-2
    )


# What is said at the start


def writing(**changes):
    given = {
        "prompt": "",
        "max_tokens": 8,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_tokens": 0,
        "prompt_multiple": 8,
        "batch": 1,
    }
    return Decoding(**(given | changes))


@pytest.mark.parametrize("rule", RULES)
def test_a_line_says_where_samples_are_not_the_policys(rule):
    exact = writing()
    assert outer_checks.notes(config(rule), exact, two_steps=False) == []
    for name, value in (("temperature", 0.7), ("top_p", 0.95), ("top_k", 5)):
        other = dataclasses.replace(exact, **{name: value})
        found = outer_checks.notes(config(rule), other, two_steps=False)
        assert len(found) == RULES[rule].groups
        assert all(f"propose.{name}={value}" in line for line in found)
    found = outer_checks.notes(config(rule), exact, two_steps=True)
    assert len(found) == RULES[rule].pairs
    earlier = dataclasses.replace(config(rule), data="accumulate")
    found = outer_checks.notes(earlier, exact, two_steps=False)
    assert len(found) == RULES[rule].groups
    assert all("'accumulate' keeps those of earlier ones" in line for line in found)
