"""Training on pairs and groups of edits, against plain loops over their definitions."""

import dataclasses
import functools
import json
import subprocess
import sys

import compilations
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import test_imitate
import test_outer_losses
import trainings
from test_imitate import EOS, MIXED

from seal_jax.models import lora
from seal_jax.training import imitate, prefer
from seal_jax.training.outer_rules import RULES
from seal_jax.training.prefer import Example, Text

WEIGHED = test_outer_losses.WEIGHED
ADVANTAGES = (1.5, -0.5, 0.25, -1.0)
# One layer, which compiles in half the time.
ARCH = dataclasses.replace(test_imitate.ARCH, layers=1)
PARAMS = {k: v for k, v in test_imitate.PARAMS.items() if k != "layers_1"}
# A pair and a group go every way; what sets their other rules apart is but the formula.
SLOW = [
    pytest.param(rule, marks=() if rule in ("dpo", "rloo") else pytest.mark.slow)
    for rule in WEIGHED
]


def config(rule, **changes):
    options = {"beta": 0.5, "nll": 0.3, "clip": 0.1, "kl": 0.2}
    prefer = test_outer_losses.config(rule, **options).prefer
    return test_imitate.config(**({"rule": rule, "prefer": prefer} | changes))


def examples(rule, texts=test_imitate.EXAMPLES):
    texts = [Text(*text) for text in texts]
    if RULES[rule].pairs:
        return [Example(pair) for pair in zip(texts[::2], texts[1::2], strict=False)]
    several = zip(texts, ADVANTAGES * 3, strict=False)
    return [Example((text,), advantage) for text, advantage in several]


def train(cfg, texts=test_imitate.EXAMPLES, seed=5):
    key = jax.random.key(seed)
    return prefer.train(
        PARAMS, examples(cfg.rule, texts), key, arch=ARCH, cfg=cfg, eos=EOS
    )


def plain_loop(cfg, seed=5):
    """Full batches of the four texts, each six tokens: one forward pass, autodiff."""
    texts = test_imitate.EXAMPLES
    ids = jnp.array([[*prompt, *completion, EOS] for prompt, completion in texts])
    counts = np.arange(6) >= np.array([len(p) - 1 for p, _ in texts])[:, None]
    # As `test_outer_losses.defined` reads them.
    layout = np.where(counts, np.arange(4)[:, None], -1)[None]
    scale = cfg.lora.alpha / cfg.lora.rank

    def log_p(delta):
        scores = test_imitate.logits(
            PARAMS, lora.scaled(delta, scale), ids[:, :-1], arch=ARCH
        )
        every = jax.nn.log_softmax(scores)
        return jnp.take_along_axis(every, ids[:, 1:, None], axis=2)[None, ..., 0]

    delta = lora.init(
        jax.random.key(seed), ARCH, targets=cfg.lora.targets, rank=cfg.lora.rank
    )
    reference = log_p(delta)
    optimizer = optax.chain(
        optax.clip_by_global_norm(cfg.clip),
        optax.scale_by_adam(),
        optax.scale_by_schedule(
            lambda step: -cfg.learning_rate * (1 - step / cfg.epochs)
        ),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_outer_losses, "SEGMENTS", layout)
        patch.setattr(test_outer_losses, "COUNTS", layout >= 0)
        loss = lambda d: test_outer_losses.defined(cfg, log_p(d), reference, ADVANTAGES)
        step, state, losses = (
            jax.jit(jax.value_and_grad(loss)),
            optimizer.init(delta),
            [],
        )
        for _ in range(cfg.epochs):
            value, grads = step(delta)
            updates, state = optimizer.update(grads, state, delta)
            delta = optax.apply_updates(delta, updates)
            losses.append(float(value))
    return lora.scaled(delta, scale), losses


@pytest.mark.parametrize("rule", SLOW)
def test_training_equals_a_plain_loop_over_the_definition(rule):
    cfg = config(rule, epochs=6)
    tuned = train(cfg)
    want, want_losses = plain_loop(cfg)
    losses = tuned.losses
    if RULES[rule].pairs:  # Which tell of the winners' cross-entropy apart.
        losses = np.array(losses) + 0.3 * np.array(tuned.figures["nll"])
    np.testing.assert_allclose(losses, want_losses, rtol=1e-4)
    trainings.assert_alike(tuned.delta, want)
    assert tuned.losses[-1] < tuned.losses[0]
    # The adapter does nothing yet: not a bit of a log-probability is another.
    first = {name: values[0] for name, values in tuned.figures.items()}
    if RULES[rule].groups:
        assert first["kl"] == first["clipped"] == first["good"] == first["bad"] == 0
        return
    assert first["lead"] == first["winner"] == first["loser"] == 0
    if rule == "dpo":
        np.testing.assert_allclose(first["loss"], np.log(2), rtol=1e-6)
    assert tuned.last("right") == [1.0]
    assert tuned.last("lead")[0] > 0.5 and tuned.last("loser")[0] < 0


@functools.cache
def whole(rule):
    return train(config(rule, batch=2, micro_batch=2, length_multiple=32), MIXED)


@pytest.mark.parametrize(
    "rule", ["dpo", *[pytest.param(r, marks=pytest.mark.slow) for r in WEIGHED[1:]]]
)
def test_micro_batches_and_packing_change_nothing(rule):
    """The lines of a pair lie in other micro-batches then."""
    cfg = config(rule, batch=2, micro_batch=1, length_multiple=8)
    tuned = train(cfg, MIXED)
    np.testing.assert_allclose(tuned.losses, whole(rule).losses, rtol=2e-4, atol=1e-6)
    trainings.assert_alike(tuned.delta, whole(rule).delta)
    assert tuned.tokens == whole(rule).tokens


@pytest.mark.parametrize("rule", ["dpo", "rloo"])
def test_a_text_that_was_cut_has_no_end(rule):
    """Its last token is its own, and neither rule learns to stop there."""
    cfg, lines = config(rule), []
    for cut in (False, True):
        texts = [Text(prompt, ids, cut) for prompt, ids in test_imitate.EXAMPLES]
        step = RULES[rule].lines
        several = [Example(tuple(texts[i : i + step])) for i in range(0, 4, step)]
        lines.append(prefer._Lines.of(several, cfg, eos=EOS, shards=1).lines)
    for whole, cut in zip(*lines, strict=True):
        assert whole.ids == [*cut.ids, EOS] and cut.ids[-1] != EOS
        assert sum(whole.weights) == sum(cut.weights) + 1


def moves(found):
    return np.concatenate(
        [np.ravel(leaves["b"]) for layer in found.values() for leaves in layer.values()]
    )


def test_a_common_factor_of_advantages_is_cancelled_and_zero_is_not():
    """Adam divides by it: shrinkage of a whole round decides whether, not how far."""
    cfg, found = config("rloo", epochs=3), []
    assert cfg.prefer is not None
    cfg = dataclasses.replace(cfg, prefer=dataclasses.replace(cfg.prefer, kl=0.0))
    for factor in (1.0, 0.05):
        several = [
            Example(one.texts, factor * one.advantage) for one in examples("rloo")
        ]
        tuned = prefer.train(
            PARAMS, several, jax.random.key(5), arch=ARCH, cfg=cfg, eos=EOS
        )
        found.append(moves(tuned.delta))
    norm = np.linalg.norm
    assert norm(found[0]) > 0
    assert norm(found[0] - found[1]) < 0.05 * norm(found[0])


def test_edits_without_an_advantage_leave_the_adapter_where_it_began():
    """Bit for bit, though it is held to the reference."""
    cfg = config("rloo", epochs=6)
    level = [Example(one.texts, 0.0) for one in examples("rloo")]
    tuned = prefer.train(PARAMS, level, jax.random.key(5), arch=ARCH, cfg=cfg, eos=EOS)
    for layer in tuned.delta.values():
        for leaves in layer.values():
            assert not np.asarray(leaves["b"]).any()


def test_rounds_of_any_number_of_pairs_run_the_same_programs():
    # Of a rate that no other test has, or they were compiled before.
    cfg = config("dpo", batch=2, length_multiple=32, learning_rate=0.0123)
    with compilations.recorded() as programs:
        for count in (10, 6, 2):
            train(cfg, MIXED[:count])
    names = [program.name for program in programs]
    assert names.count("train_step") == names.count("log_probs") == 1
    # They are what `expect` names.
    with compilations.recorded() as programs:
        prefer.expect(
            PARAMS,
            20,
            arch=ARCH,
            cfg=cfg,
            eos=EOS,
            call=lambda fn, *a, **k: fn(*a, **k),
        )
    assert not {p.name for p in programs} & {"train_step", "log_probs"}


def test_nothing_to_learn_is_refused_with_what_to_change():
    with pytest.raises(ValueError, match=r"'dpo' has nothing.*imitate\.prefer\.marg"):
        prefer.train(
            PARAMS, [], jax.random.key(0), arch=ARCH, cfg=config("dpo"), eos=EOS
        )


CHILD = """
import json, sys
import jax, numpy as np
import test_prefer as t
from seal_jax.models import placement
from seal_jax.runtime import meshes
from seal_jax.training import prefer

found = {}
for data, model in ((8, 1), (2, 2))[: len(sys.argv) - 1]:
    mesh = meshes.make_mesh(data=data, model=model)
    placed = jax.device_put(t.PARAMS, placement.param_shardings(t.ARCH, mesh))
    for rule in sys.argv[1:]:
        cfg = t.config(rule, batch=2, micro_batch=2, length_multiple=32)
        tuned = prefer.train(placed, t.examples(rule, t.MIXED), jax.random.key(5),
                             arch=t.ARCH, cfg=cfg, eos=t.EOS, mesh=mesh)
        leaves = [np.asarray(x).tolist() for x in jax.tree.leaves(tuned.delta)]
        found[f"{rule} {data}"] = [tuned.losses, leaves]
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    "rules", [["dpo"], pytest.param(WEIGHED, marks=pytest.mark.slow)], ids=len
)
def test_a_mesh_trains_what_one_device_does(rules, root, child_env):
    env = child_env | {"JAX_NUM_CPU_DEVICES": "8"}
    env["PYTHONPATH"] += f":{root / 'tests/training'}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, *rules],
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == len(rules) * min(2, len(rules))
    for name, (losses, leaves) in found.items():
        one = whole(name.split()[0])
        np.testing.assert_allclose(losses, one.losses, rtol=2e-4, atol=1e-6)
        own = jax.tree.structure(one.delta).unflatten(map(np.array, leaves))
        trainings.assert_alike(own, one.delta)


def test_each_epoch_takes_every_example_once_in_a_new_order():
    """As all rules do, pairs as one."""
    cfg = config("dpo", batch=3, micro_batch=1, epochs=2)
    key = jax.random.key(5)
    rng = np.random.default_rng(jax.random.key_data(key).tolist())
    orders = [rng.permutation(7).tolist() for _ in range(2)]
    want = [order[i : i + 3] for order in orders for i in (0, 3, 6)]
    assert imitate.batches(7, cfg, key) == want
