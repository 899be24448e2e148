"""The round in one program against the round that the host drives."""

import dataclasses
import functools
import random
from typing import Any, NamedTuple

import device_round
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_model
import trainings

from seal_jax.generation import policies
from seal_jax.models import lora
from seal_jax.rounds import (
    draws,
    lessons,
    on_device,
    over_seeds,
    rest_em,
    round_inputs,
    select,
    token_forms,
    trials,
)
from seal_jax.rounds.graded import Graded
from seal_jax.rounds.on_device import State
from seal_jax.tasks import knowledge_setup
from seal_jax.tasks.base import Edit
from seal_jax.training import packed, plan


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def exp(path):
    return device_round.experiment(path)


@pytest.fixture(scope="module")
def policy(exp):
    return policies.load(exp.model, policies.describe(exp.model), seed=exp.seed)


@pytest.fixture(scope="module")
def train(exp):
    return [device_round.easy(items) for items in knowledge_setup.load(exp)[0]]


@pytest.fixture(scope="module")
def scanned(exp, policy, train):
    """Both rounds in one call: policies after them, and what they did."""
    task = knowledge_setup.make(exp, policy, train[0], [])
    tables, both = over_seeds.prepare(exp, task, policy, [*train[0], *train[1]])
    cfg = dataclasses.replace(both.round, keep_adapters=True)
    rounds = [
        round_inputs.inputs(exp, task, items, tables, cfg, index=r)
        for r, items in enumerate(train, start=1)
    ]

    def step(state, inputs):
        state, done = on_device.round_step(state, inputs, cfg=cfg)
        return state, (state, done)

    run = jax.jit(functools.partial(jax.lax.scan, step))
    _, out = run(State(policy.params), over_seeds.stacked(rounds))
    return jax.device_get(out)


@pytest.fixture(scope="module")
def hosted(exp, policy, train, tmp_path_factory):
    """Both rounds as the host drives them, and their adapters by the jobs' seeds."""
    workdir = tmp_path_factory.mktemp("host")
    own = dataclasses.replace(policy, params=jax.tree.map(jnp.copy, policy.params))
    outcomes, adapters = [], {}

    def trained(params, jobs, keys_A, **settings):
        done = train_packed(params, jobs, keys_A=keys_A, **settings)
        for a, job in enumerate(jobs):
            adapters[job.seed] = jax.device_get(lora.select(done.adapters, a))
        return done

    train_packed = packed.train
    with (
        device_round.hosted(exp, policy, train[0], workdir) as run,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(packed, "train", trained)
        for index, items in enumerate(train, start=1):
            done = rest_em.one_round(
                run,
                own,
                items,
                start=None,
                past=[],
                round_index=index,
                workdir=workdir,
            )
            own = done.policy
            outcomes.append((done, jax.device_get(own.params)))
    return outcomes, adapters


def at(tree, *index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def test_two_rounds_are_those_that_the_host_drives(exp, policy, hosted, scanned):
    (states, done), (outcomes, _) = scanned, hosted
    earned = set()
    for r, (outcome, params) in enumerate(outcomes):
        graded = outcome.graded
        ids, sizes = at(done.edits.text, r)
        written = zip(ids.reshape(-1, ids.shape[-1]), sizes.ravel(), strict=True)
        texts = [policy.encode(g.edit.text) for g in graded]
        assert [row[:n].tolist() for row, n in written] == texts
        refused = [g.edit.refused is not None for g in graded]
        assert done.edits.refused_PE[r].ravel().tolist() == refused
        nats, tokens = (leaf[r].sum() for leaf in done.surprise)
        assert nats / tokens == pytest.approx(outcome.entropy, rel=1e-5)
        right, losses = (
            leaf[r].reshape(len(graded), -1)
            for leaf in (done.trials.right, done.trials.loss)
        )
        assert right.tolist() == [[sum(s) for s in g.scores] or [0, 0] for g in graded]
        told = [[t.loss for t in g.trials] or [0, 0] for g in graded]
        np.testing.assert_allclose(losses, told, rtol=1e-4)
        kept = [p * exp.scale.edits + k for p, (k,) in enumerate(done.kept_PK[r])]
        assert kept == outcome.kept
        np.testing.assert_allclose(done.baseline_P[r] / 6, outcome.baseline)
        trainings.assert_alike(at(states.params, r), params)
        earned |= {g.reward for g in graded}
    assert len(earned) > 2  # Else the choice would show nothing.
    assert trainings.gap(at(states.params, -1), policy.params) > 0.05


def test_adapters_are_those_of_the_packed_engine(exp, hosted, scanned):
    _, adapters = hosted
    assert len(adapters) > exp.scale.adapters  # Of more than one round.
    for (_, _, round_index, *place), delta in adapters.items():
        own = at(scanned[1].adapters, round_index - 1, *place)
        trainings.assert_alike(own, delta)
        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(delta)) > 0.05


# Choices, without a model


def chosen(exp, right, refused, baseline, **changes):
    """What `choose` keeps of the passages' edits, by `select`'s names of the rule."""
    rule = dataclasses.replace(exp.select.rule, **changes)
    cfg = Choice(rule, seeds=2, edits=len(right[0]))
    seeds = [f"ties 0 1 {p}" for p in range(len(right))]
    inputs = Read(
        least_P=np.array([bound(rule.threshold)] * len(right)),
        draws=Drawn(draws.ranks(rule.ties, seeds, edits=cfg.edits)),
        words=None,
    )
    tried = on_device.Trials(np.array(right)[..., None], None, None, None)
    edits = on_device.Edits(None, np.array(refused))
    kept = on_device.choose(tried, edits, np.array(baseline), inputs, cfg)  # pyright: ignore
    places = [p * cfg.edits + e for p, row in enumerate(kept.tolist()) for e in row]
    return [place for place, e in zip(places, kept.ravel(), strict=True) if e >= 0]


def bound(threshold):
    return token_forms.needed(12, threshold) if isinstance(threshold, float) else 0


class Choice(NamedTuple):
    rule: select.Rule
    seeds: int
    edits: int


class Read(NamedTuple):
    least_P: np.ndarray
    draws: Any
    words: None


class Drawn(NamedTuple):
    ranks: np.ndarray


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ties": "random"},
        {"k_best": 3},
        {"k_best": 3, "ties": "random"},
        {"threshold": 0.5},
        {"threshold": "baseline", "k_best": 2},
    ],
    ids=str,
)
def test_what_is_kept_is_what_select_keeps(exp, changes):
    rng = np.random.default_rng(0)
    # Of six questions and two seeds: shares with many ties.
    right = rng.integers(0, 13, (40, 4)) // 3 * 3
    refused, baseline = rng.random((40, 4)) < 0.2, rng.integers(0, 7, 40)
    graded = [
        Graded(
            Edit(p, e, "", "text", refused="blank" if refused[p, e] else None),
            (),
            (),
            (),
            None if refused[p, e] else right[p, e] / 12,
        )
        for p in range(40)
        for e in range(4)
    ]
    rule = dataclasses.replace(exp.select.rule, **changes)
    want = select.choose(
        graded, [None] * 40, (baseline / 6).tolist(), rule=rule, ties_seed="0 1"
    )
    assert chosen(exp, right, refused, baseline, **changes) == want
    assert 0 < len(want) < 40 * 4


def test_positive_keeps_what_beats_the_baseline_and_the_control_as_many(
    path, policy, train
):
    """By the rule that the host's loop follows; a control keeps as many at random."""
    exp = device_round.experiment(
        path, imitate__rule="positive", imitate__prefer__most=2
    )
    task = knowledge_setup.make(exp, policy, train[0], [])
    tables, both = over_seeds.prepare(exp, task, policy, [*train[0], *train[1]])
    want = lessons.select_rule(exp.imitate, exp.select.rule, edits=exp.scale.edits)
    assert both.round.rule == want
    assert (want.threshold, want.k_best) == (select.BASELINE, 2)
    count, steps = len(train[0]), exp.imitate.epochs
    k_best = 2
    for stage in (trials.IMITATE, trials.CONTROL):
        made = round_inputs.inputs(
            exp, task, train[0], tables, both.round, index=1, stage=stage
        )
        assert made.draws.chosen.shape == (count, exp.scale.edits + 1, k_best)
        batches = -(-count * k_best // exp.imitate.batch)
        assert made.draws.batches.shape[:2] == (count * k_best + 1, steps * batches)


def test_orders_and_rates_are_those_of_the_engines_jobs(exp):
    seeds = [(3, 1, 0), (3, 1, 1)]
    orders = draws.orders(exp.inner, seeds, lines=4)
    rates = draws.rates(exp.inner, lines=4)
    for count in range(1, 5):
        for row, seed in zip(orders, seeds, strict=True):
            job = plan.Job(
                ((0,),) * count,
                seed,
                epochs=exp.inner.epochs,
                learning_rate=exp.inner.learning_rate,
                clip=1.0,
                loss=exp.inner.loss,
            )
            assert row[count - 1, : job.total].tolist() == job.order()
            assert rates[count - 1, : job.total].tolist() == job.rates().tolist()
        assert not rates[count - 1, job.total :].any()


def test_the_control_draws_as_python_does():
    table = draws.chosen(["control 0 1 5"], edits=4, k_best=2)
    for count in range(1, 5):
        want = random.Random("control 0 1 5").sample(
            list("abcd")[:count], min(2, count)
        )
        picks = [i for i in table[0, count].tolist() if i >= 0]
        assert ["abcd"[i] for i in picks] == want
    assert table[0, 0].tolist() == [-1, -1]
