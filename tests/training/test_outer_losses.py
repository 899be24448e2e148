"""Losses of outer rules as weights of cross-entropies, against their definitions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_model

from seal_jax.rounds import lessons
from seal_jax.training import outer_losses
from seal_jax.training.outer_losses import Sides
from seal_jax.training.outer_rules import RULES, OuterRates, PreferConfig
from seal_jax.training.settings import ImitateConfig, LoraConfig

PREFER = {
    **tiny_model.OPTIONAL["imitate.prefer"],
    "rates": OuterRates(0.0, 0.0, 0.0, 0.0, 0.0),
    "nll": 0.0,
}
WEIGHED = [name for name, rule in RULES.items() if rule.weighed]
PAIRS = [name for name, rule in RULES.items() if rule.pairs]
GROUPS = [name for name, rule in RULES.items() if rule.groups]

# Lines in two micro-batches of two rows; -1: none. A prompt's tokens have no weight.
SEGMENTS = np.array(
    [
        [[0, 0, 0, 2, 2, -1], [1, 1, -1, -1, -1, -1]],
        [[3, 3, 3, 3, 3, 3], [-1, -1, -1, -1, -1, -1]],
    ]
)
COUNTS = (SEGMENTS >= 0) & (np.arange(6) != 0)
TOKENS = [int((COUNTS & (i == SEGMENTS)).sum()) for i in range(4)]
# Room for a line more than there are of groups, for a pair more of pairs.
ADVANTAGES = [1.5, -0.5, 0.0, -1.0]


def config(rule, **changes):
    return ImitateConfig(
        start="previous",
        data="replace",
        lora=LoraConfig(("q_proj",), 2, 4.0),
        learning_rate=1e-2,
        schedule="linear",
        epochs=1,
        clip=1.0,
        batch=4,
        micro_batch=2,
        length_multiple=8,
        rule=rule,
        prefer=PreferConfig(**(PREFER | changes)),
    )


def drawn(seed, spread=0.4):
    rng = np.random.default_rng(seed)
    reference = -rng.uniform(0.1, 3.0, SEGMENTS.shape).astype(np.float32)
    moved = rng.normal(0, spread, SEGMENTS.shape).astype(np.float32)
    log_p = np.where(COUNTS, reference + moved, 0)
    return log_p, np.where(COUNTS, reference, 0)


def sides(advantages=ADVANTAGES):
    room = 2
    return Sides(
        np.array([*advantages, *[0.0] * room], np.float32),
        np.array([*TOKENS, *[0.0] * room], np.float32),
    )


def weigh(cfg, log_p, reference, of=None):
    rows = {"segments": SEGMENTS, "weights": COUNTS.astype(np.float32)}
    return outer_losses.weigh(
        jnp.asarray(log_p), jnp.asarray(reference), rows, of or sides(), cfg
    )


def defined(cfg, log_p, reference, advantages=ADVANTAGES):
    """The loss as the papers have it, line by line, for `jax.grad` to take."""
    own, prefer = RULES[cfg.rule], cfg.prefer
    lines = [np.argwhere(COUNTS & (i == SEGMENTS)) for i in range(4)]
    mine = [jnp.stack([log_p[tuple(at)] for at in line]) for line in lines]
    theirs = [jnp.stack([reference[tuple(at)] for at in line]) for line in lines]
    whole = jnp.mean if prefer.per_token else jnp.sum
    losses = []
    if own.pairs:
        for w in (0, 2):
            lead = whole(mine[w] - theirs[w]) - whole(mine[w + 1] - theirs[w + 1])
            if cfg.rule == "dpo":
                value = -jnp.log(1 / (1 + jnp.exp(-prefer.beta * lead)))
            else:
                value = (lead - 1 / (2 * prefer.beta)) ** 2
            losses.append(value - prefer.nll * jnp.mean(mine[w]))
        return sum(losses) / len(losses)
    for p, ref, advantage in zip(mine, theirs, advantages, strict=True):
        if cfg.rule == "grpo":
            ratio = jnp.exp(p - ref)
        else:
            ratio = jnp.exp(whole(p - ref))[None]
        low, high = 1 - prefer.clip, 1 + prefer.clip
        clipped = jnp.clip(ratio, low, high) if prefer.clip else ratio
        gain = jnp.minimum(ratio * advantage, clipped * advantage)
        k3 = jnp.exp(ref - p) - (ref - p) - 1
        losses.append(-jnp.mean(gain) + prefer.kl * jnp.mean(k3))
    return sum(losses) / len(losses)


CHANGES = [
    {},
    {"per_token": True},
    {"beta": 1.3},
    {"nll": 0.7},
    {"kl": 0.6},
    {"clip": 0.0},
    {"clip": 0.01, "kl": 0.3, "per_token": True},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.parametrize("rule", WEIGHED)
def test_weights_are_the_gradient_of_the_definition(rule, changes):
    """Away from the start, where every term has a slope of its own."""
    cfg = config(rule, **changes)
    log_p, reference = drawn(3)
    weights, figures = weigh(cfg, log_p, reference)
    value, slope = jax.value_and_grad(lambda x: defined(cfg, x, reference))(
        jnp.asarray(log_p)
    )
    # Cross-entropy is the negative log-probability.
    np.testing.assert_allclose(weights, -slope, rtol=1e-4, atol=1e-6)
    nll = cfg.prefer.nll * figures.get("nll", 0.0)
    np.testing.assert_allclose(figures["loss"] + nll, value, rtol=1e-5)
    assert np.abs(weights).max() > 1e-3
    assert not np.asarray(weights)[~COUNTS].any()


def test_dpo_begins_at_log_2_with_the_papers_gradient():
    _, reference = drawn(0)
    weights, figures = weigh(config("dpo", beta=0.3), reference, reference)
    np.testing.assert_allclose(figures["loss"], np.log(2), rtol=1e-6)
    assert figures["right"] == figures["lead"] == figures["winner"] == 0
    # The loss's slope by the winner's log-likelihood is -beta / 2, by the loser's
    # beta / 2; two pairs, of which a loss is the mean.
    signs = np.where(SEGMENTS % 2 == 0, 1, -1)
    expected = np.where(COUNTS, signs * 0.3 / 2 / 2, 0)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_ipo_begins_with_its_gradient():
    _, reference = drawn(0)
    weights, figures = weigh(config("ipo", beta=0.3), reference, reference)
    np.testing.assert_allclose(figures["loss"], (1 / 0.6) ** 2, rtol=1e-6)
    signs = np.where(SEGMENTS % 2 == 0, 1, -1)
    expected = np.where(COUNTS, signs / 0.3 / 2, 0)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_ipo_is_content_at_its_lead_and_dpo_never_is():
    log_p, reference = drawn(0, spread=0.0)
    for line, change in ((0, 1.0), (2, 2.0), (1, -1.0), (3, 0.0)):
        at = COUNTS & (line == SEGMENTS)
        log_p = log_p + np.where(at, change / TOKENS[line], 0)
    weights, figures = weigh(config("ipo", beta=0.25), log_p, reference)
    np.testing.assert_allclose(figures["lead"], 2.0, rtol=1e-5)
    np.testing.assert_allclose(weights, np.zeros_like(weights), atol=1e-5)
    weights, figures = weigh(config("dpo", beta=0.25), log_p, reference)
    assert figures["right"] == 1 and np.abs(weights).max() > 0.01


@pytest.mark.parametrize("rule", WEIGHED)
def test_a_longer_text_has_no_larger_say_where_tokens_are_averaged(rule):
    _, reference = drawn(0)
    summed = lambda made: [
        float(jnp.sum(jnp.where(i == SEGMENTS, made, 0))) for i in range(4)
    ]
    of = sides([1.0, -1.0, 1.0, -1.0])
    whole, _ = weigh(config(rule, per_token=True), reference, reference, of)
    sizes = np.abs(summed(whole))
    np.testing.assert_allclose(sizes, sizes[:1].repeat(4), rtol=1e-5)
    if rule != "grpo":  # Which always averages.
        long, _ = weigh(config(rule), reference, reference, of)
        ratio = np.abs(summed(long)) / sizes
        np.testing.assert_allclose(ratio, TOKENS, rtol=1e-5)


@pytest.mark.parametrize("kl", [0.0, 0.5])
@pytest.mark.parametrize("rule", GROUPS)
def test_no_advantage_and_no_move_is_no_gradient_at_all(rule, kl):
    _, reference = drawn(1)
    weights, figures = weigh(config(rule, kl=kl), reference, reference, sides([0] * 4))
    assert not np.asarray(weights).any()
    assert figures["loss"] == figures["kl"] == figures["clipped"] == 0


@pytest.mark.parametrize("rule", GROUPS)
def test_a_ratio_beyond_the_clip_moves_no_further(rule):
    _, reference = drawn(1)
    cfg = config(rule, clip=0.2)
    for sign, moved, held in itertools.product((1, -1), (0.4, -0.4), (True, False)):
        if held != (sign * moved > 0):
            continue
        log_p = np.where(COUNTS, reference + moved, 0)
        weights, figures = weigh(cfg, log_p, reference, sides([sign] * 4))
        assert bool(np.asarray(weights).any()) != held
        np.testing.assert_allclose(figures["clipped"], float(held), rtol=1e-6)


@pytest.mark.parametrize("rule", WEIGHED)
def test_what_is_far_off_stays_finite(rule):
    log_p, reference = drawn(1)
    for change in (300.0, -300.0):
        weights, figures = weigh(config(rule, kl=0.1), log_p + change, reference)
        assert np.isfinite(weights).all()
        assert all(np.isfinite(value) for value in figures.values())


# A bandit of two arms: the expected reward is known exactly


@pytest.mark.parametrize("edits", [2, 3, 5])
def test_rloo_climbs_the_expected_reward_of_a_bandit(edits):
    """Over all groups that can be drawn, against the exact derivative."""
    rewards, logit = np.array([0.9, 0.2]), 0.4
    p = 1 / (1 + np.exp(-logit))
    chance = np.array([p, 1 - p])
    # The slope of log p of each arm by the logit, and of E[r] = p r_0 + (1 - p) r_1.
    slope = np.array([1 - p, -p])
    exact = p * (1 - p) * (rewards[0] - rewards[1])

    def expected(rule, **changes):
        prefer, total = config(rule, **changes).prefer, 0.0
        for arms in itertools.product((0, 1), repeat=edits):
            found = lessons.advantages(rewards[list(arms)].tolist(), rule, prefer)
            step = np.mean(np.array(found) * slope[list(arms)])
            total += chance[list(arms)].prod() * step
        return total

    assert expected("rloo") == pytest.approx(exact, rel=1e-12)
    # The mean is no baseline of the edit's own: it takes a share of its reward.
    biased = expected("grpo", std=False)
    assert biased == pytest.approx(exact * (edits - 1) / edits, rel=1e-12)
    # In standard deviations the direction is the same, and the size another.
    scaled = expected("grpo", std=True)
    assert scaled > 0 and scaled != pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("rule", GROUPS)
def test_the_first_step_is_reinforce_with_a_baseline(rule):
    """The engine's weights, on lines of one token: advantage times the slope."""
    segments = np.arange(4).reshape(1, 1, 4)
    rows = {"segments": segments, "weights": np.ones((1, 1, 4), np.float32)}
    log_p = jnp.full((1, 1, 4), -0.7)
    of = Sides(np.array(ADVANTAGES, np.float32), np.ones(4, np.float32))
    weights, _ = outer_losses.weigh(log_p, log_p, rows, of, config(rule))
    np.testing.assert_allclose(weights[0, 0], np.array(ADVANTAGES) / 4, rtol=1e-6)
