"""Rounds that write more quizzes than they train: what ranks them, and what goes on.

With the embedded model, which can ask. What a quiz is worth is held to gradients that
`jax.grad` gives candidate by candidate, of losses that are written out here.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_model

from seal_jax import train
from seal_jax.experiment import checks, kinds
from seal_jax.generation import policies
from seal_jax.models import decoder, key_ranges, lora
from seal_jax.rounds import trials
from seal_jax.runtime import files, prng
from seal_jax.tasks import self_edit

WRITTEN, KEPT, OTHERS = 5, 2, 1
# Positions of the longest text here, a passage and a question among them.
ROOM = 128


def values(rule):
    """One round of two passages; of five quizzes that are written three are trained."""
    config = tiny_model.load_config("tiny", "debug")
    changes = {
        "scale.rounds": 1,
        "scale.passages": 2,
        "scale.edits": KEPT + OTHERS,
        "scale.heldout_passages": 2,
        "inner.rule": rule,
        "inner.epochs": 2,
        "inner.slots": 4,
        "inner.active": 4,
        "inner.pool": 4,
        "inner.step_tokens": 128,
        "answer.batch": 12,
        "label_free.quiz.batch": 4,
        "select.prefilter": ("gradient", WRITTEN, KEPT, OTHERS),
        "ladder": ("base",),
    }
    config.update_from_flattened_dict(changes)
    return config.to_dict()


@pytest.fixture(
    scope="module",
    params=[
        "quiz",
        pytest.param("distill", marks=pytest.mark.slow),
        pytest.param("mix", marks=pytest.mark.slow),
    ],
)
def made(request, tmp_path_factory):
    """The rule, and the finished run under it."""
    path = tmp_path_factory.mktemp("dreams")
    train.run(values(request.param), path)
    return request.param, path


@pytest.fixture(scope="module")
def loaded():
    """The experiment, its passages by their names, and the base."""
    given = values("quiz")
    exp = kinds.read(given)
    checked = checks.check(exp, given)
    policy = policies.load(
        exp.model, checked.blank, seed=exp.seed, mesh=None, merges=True
    )
    return exp, {item.id: item for item in checked.train[0]}, policy


def rows(path):
    return list(files.read_jsonl(path / "edits.jsonl"))


def test_the_best_quizzes_are_trained_and_one_at_random(made):
    """By what each would teach; those aside were written, and cost no adapter."""
    _, path = made
    items = {}
    for row in rows(path):
        assert bool(row.get("pairs")) == (row["refused"] is None)
        items.setdefault(row["passage_id"], []).append(row)
    assert len(items) == 2
    for written in items.values():
        assert [row["edit"] for row in written] == [*range(WRITTEN)]
        valid = [row for row in written if row["refused"] is None]
        by_score = sorted(valid, key=lambda row: -score(row))
        going = [row["edit"] for row in valid if not row["aside"]]
        assert len(going) == min(KEPT + OTHERS, len(valid))
        assert {row["edit"] for row in by_score[:KEPT]} <= {*going}
        for row in written:
            assert bool(row["answers"]) == (not row["aside"])
            assert not (row["aside"] and row["kept"])
    assert len({score(row) for row in rows(path) if not row["refused"]}) > WRITTEN
    line = json.loads((path / "summary.json").read_text())["rounds"][0]
    assert line["written"] == 2 * WRITTEN
    assert line["trainings"] <= 2 * (KEPT + OTHERS)


def score(row):
    (value,) = row["measured"]["gradient"]
    return value


# The definition: losses of one question each, closed-book, written out.


@pytest.fixture(scope="module")
def gradients(loaded):
    """Of each loss of an answer, in the B of a fresh adapter: a function of the ids."""
    exp, _, policy = loaded
    arch, cfg = policy.arch, exp.inner.lora
    key = prng.take(prng.fold(prng.root(exp.seed), [trials.DREAM], [1]), 0)
    fresh = lora.init(key, arch, targets=cfg.targets, rank=cfg.rank)

    def log_p(ids_1T, delta):
        """Of what follows each position, `[T, V]`."""
        at_1T = jnp.arange(ROOM)[None]
        causal = key_ranges.causal(jnp.ones((1, ROOM), bool))
        states, _ = decoder.hidden(policy.params, delta, arch, ids_1T, at_1T, causal)
        return jax.nn.log_softmax(decoder.logits(policy.params, arch, states[0]))

    def adapted(b, ids_1T):
        scale = cfg.alpha / cfg.rank
        delta = {
            layer: {
                name: {"a": ab["a"], "b": scale * b[layer][name]}
                for name, ab in linears.items()
            }
            for layer, linears in fresh.items()
        }
        return log_p(ids_1T, delta)

    def said(b, ids_1T, begin, count):
        """Cross-entropy of the tokens from `begin` on, their mean."""
        log_p_TV, at_T = adapted(b, ids_1T), jnp.arange(ROOM)
        own_T = (at_T >= begin - 1) & (at_T < begin - 1 + count)
        told_T = log_p_TV[at_T, jnp.roll(ids_1T[0], -1)]
        return -jnp.sum(jnp.where(own_T, told_T, 0.0)) / count

    def taught(b, ids_1T, begin, count, seen_1T, seen):
        """KL from the model that has read `seen` tokens before the same ones."""
        log_p_TV, log_q_TV = adapted(b, ids_1T), log_p(seen_1T, None)
        log_q_TV = jnp.roll(log_q_TV, begin - seen, axis=0)
        at_T = jnp.arange(ROOM)
        own_T = (at_T >= begin - 1) & (at_T < begin - 1 + count)
        apart_T = jnp.sum(jnp.exp(log_q_TV) * (log_q_TV - log_p_TV), axis=-1)
        return jnp.sum(jnp.where(own_T, apart_T, 0.0)) / count

    zeros = lora.per_linear(fresh, lambda ab: ab["b"])
    of = {"said": jax.jit(jax.grad(said)), "taught": jax.jit(jax.grad(taught))}
    return {name: functools.partial(run, zeros) for name, run in of.items()}


def padded(ids):
    assert len(ids) <= ROOM
    return jnp.zeros((1, ROOM), jnp.int32).at[0, : len(ids)].set(jnp.array(ids))


def slope(loaded, gradients, item, pairs, *, taught=False):
    """The sum of the gradients of the answers to questions about an item."""
    exp, _, policy = loaded
    template = self_edit.ANSWER_PROMPTS[exp.answer.prompt]
    total = None
    for question, answer in pairs:
        asked = policy.encode(self_edit.answer_prompt(template, item, question))
        tail = [*policy.encode(answer), policy.eos]
        given = padded([*asked, *tail]), len(asked), len(tail)
        if taught:
            seen = policy.encode(self_edit.in_view_prompt(template, item, question))
            own = gradients["taught"](*given, padded([*seen, *tail]), len(seen))
        else:
            own = gradients["said"](*given)
        total = own if total is None else jax.tree.map(jnp.add, total, own)
    assert total is not None
    return total


def test_a_score_is_the_product_with_what_the_policy_asks_itself(
    made, loaded, gradients
):
    """Of all answers of the candidate, by the rule's loss, summed; and of the mean of
    the policy's own answers to other questions, which the journal has."""
    rule, path = made
    _, items, _ = loaded
    units = {
        row["key"]: row["value"] for row in files.read_jsonl(path / "journal.jsonl")
    }
    asked = dict(zip(items, units["round_1/quiz"]["quizzes"], strict=True))
    targets = {
        name: slope(loaded, gradients, items[name], pairs)
        for name, pairs in asked.items()
    }
    found, defined = [], []
    for row in rows(path):
        if row["refused"] is None:
            name = row["passage_id"]
            own = slope(
                *(loaded, gradients, items[name], row["pairs"]),
                taught=rule == "distill",
            )
            both = zip(*map(jax.tree.leaves, (own, targets[name])), strict=True)
            product = sum(float(jnp.vdot(x, y)) for x, y in both)
            defined.append(product / len(asked[name]))
            found.append(score(row))
    assert len(found) > WRITTEN
    np.testing.assert_allclose(found, defined, rtol=1e-3, atol=1e-4)
