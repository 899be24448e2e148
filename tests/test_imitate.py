"""Fine-tuning on kept edits, against a plain loop that knows no padding."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seal_jax import imitate, lora, model, training_settings

ARCH = model.ModelConfig("llama", 40, 16, 2, 2, 1, 8, 24, 64, tied=True)
EOS = 39
ALL = tuple(ARCH.linears())
PARAMS = jax.tree.map(
    lambda leaf: 5 * leaf if leaf.ndim > 1 else leaf,
    model.init_params(jax.random.key(0), ARCH),
)
# (prompt, completion), six tokens together: the oracle below needs no padding.
EXAMPLES = [
    ((1, 2, 3), (4, 5, 6)),
    ((6, 7), (8, 9, 10, 11)),
    ((13, 14, 15, 16, 17), (18,)),
    ((19, 20, 21, 22, 23, 24), ()),
]


def config(**changes):
    base = {
        "start": "previous",
        "data": "replace",
        "lora": training_settings.LoraConfig(("q_proj", "down_proj"), 3, 6.0),
        "learning_rate": 2e-2,
        "epochs": 3,
        "batch": 4,
        "micro_batch": 2,
        "clip": 1.0,
        "length_multiple": 8,
        "schedule": "linear",
    }
    return training_settings.ImitateConfig(**(base | changes))


def train(cfg, examples=EXAMPLES, seed=5, params=PARAMS):
    key = jax.random.key(seed)
    return imitate.train(params, examples, key, arch=ARCH, cfg=cfg, eos=EOS)


def assert_close(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


@jax.jit
def logits(params, delta, tokens_BT):
    """Of whole rows without padding."""
    b, t = tokens_BT.shape
    positions = jnp.broadcast_to(jnp.arange(t), (b, t))
    mask = jnp.broadcast_to(jnp.tril(jnp.ones((t, t), bool)), (b, t, t))
    variables = {"params": params} | ({"lora": delta} if delta else {})
    decoder = model.Decoder(ARCH)
    hidden, _ = decoder.apply(variables, tokens_BT, positions, mask)
    return decoder.apply(variables, hidden, method="unembed")


def completion_loss(delta, examples, params=PARAMS):
    """Mean over all completion tokens, end-of-text included."""
    ids = jnp.array([[*prompt, *completion, EOS] for prompt, completion in examples])
    log_p = jax.nn.log_softmax(logits(params, delta, ids[:, :-1]))
    picked = jnp.take_along_axis(log_p, ids[:, 1:, None], axis=2)[..., 0]
    own = [-row[len(p) - 1 :] for row, (p, _) in zip(picked, examples, strict=True)]
    return jnp.mean(jnp.concatenate(own))


def plain_loop(cfg, examples, seed=5):
    """Full-batch training as a user of optax would write it."""
    delta = lora.init(
        jax.random.key(seed), ARCH, targets=cfg.lora.targets, rank=cfg.lora.rank
    )
    rate = lambda step: cfg.learning_rate * (1 - step / cfg.epochs)
    optimizer = optax.chain(
        optax.clip_by_global_norm(cfg.clip),
        optax.scale_by_adam(),
        optax.scale_by_schedule(lambda step: -rate(step)),
    )
    state, losses = optimizer.init(delta), []
    loss_fn = lambda d: completion_loss(
        lora.scaled(d, cfg.lora.alpha / cfg.lora.rank), examples
    )
    step = jax.jit(jax.value_and_grad(loss_fn))
    for _ in range(cfg.epochs):
        loss, grads = step(delta)
        updates, state = optimizer.update(grads, state, delta)
        delta = optax.apply_updates(delta, updates)
        losses.append(float(loss))
    return lora.scaled(delta, cfg.lora.alpha / cfg.lora.rank), losses


def test_rows_ask_for_completions_and_their_end():
    rows = imitate.make_rows([((1, 2), (3, 4)), ((5,), ())], width=6, eos=EOS)
    e = EOS
    assert rows["tokens"].tolist() == [[1, 2, 3, 4, e, e], [5, e, e, e, e, e]]
    assert rows["targets"].tolist() == [[2, 3, 4, e, e, e], [e] * 6]
    assert rows["weights"].tolist() == [[0, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]]


def test_only_completions_carry_loss():
    rows = imitate.make_rows(EXAMPLES, width=8, eos=EOS)
    delta = lora.init(jax.random.key(1), ARCH, targets=ALL, rank=2)
    loss = jax.jit(lambda r: imitate.sum_loss(PARAMS, delta, r, ARCH))
    base = loss(rows)
    counted = sum(len(completion) + 1 for _, completion in EXAMPLES)
    np.testing.assert_allclose(
        base / counted, completion_loss(delta, EXAMPLES), rtol=1e-5
    )
    ignored = rows["weights"] == 0
    elsewhere = (rows["targets"] + 7) % EOS
    other = {**rows, "targets": np.where(ignored, elsewhere, rows["targets"])}
    assert loss(other) == base
    # Every single target that counts does.
    for b, t in np.argwhere(~ignored):
        targets = rows["targets"].copy()
        targets[b, t] = elsewhere[b, t]
        assert loss({**rows, "targets": targets}) != base


@pytest.mark.parametrize("clip", [100.0, 0.05])
def test_training_equals_a_plain_optax_loop(clip):
    cfg = config(clip=clip)
    delta, losses = train(cfg)
    want, want_losses = plain_loop(cfg, EXAMPLES)
    np.testing.assert_allclose(losses, want_losses, rtol=1e-5)
    assert_close(delta, want, atol=1e-4)
    assert losses[-1] < losses[0]


def test_micro_batches_equal_the_full_batch():
    whole, whole_losses = train(config(micro_batch=2))
    for micro in (1, 4):
        delta, losses = train(config(micro_batch=micro))
        np.testing.assert_allclose(losses, whole_losses, rtol=1e-5)
        assert_close(delta, whole, atol=1e-4)


def test_empty_rows_of_a_short_batch_change_nothing():
    exact, losses = train(config(batch=3, micro_batch=1), EXAMPLES[:3])
    padded, padded_losses = train(config(), EXAMPLES[:3])
    np.testing.assert_allclose(padded_losses, losses, rtol=1e-5)
    assert_close(padded, exact, atol=1e-4)


def test_the_rate_falls_linearly_over_all_steps(monkeypatch):
    """Adam's first update has the size of the rate; so has every later one with the
    gradient's sign unchanged, whatever its size."""
    seen = []
    real = imitate.train_step

    def spy(params, state, rows, *, arch, cfg, steps):
        before = jax.tree.map(np.array, state[0])
        new, loss = real(params, state, rows, arch=arch, cfg=cfg, steps=steps)
        moved = jax.tree.map(lambda n, o: np.abs(np.array(n) - o).max(), new[0], before)
        seen.append((steps, max(jax.tree.leaves(moved))))
        return new, loss

    monkeypatch.setattr(imitate, "train_step", spy)
    # One example, again and again, at a rate too small to turn a gradient.
    cfg = config(epochs=5, batch=1, micro_batch=1, learning_rate=1e-4)
    train(cfg, EXAMPLES[:1])
    assert [steps for steps, _ in seen] == [5] * 5
    expected = 1e-4 * (1 - np.arange(5) / 5)
    np.testing.assert_allclose([m for _, m in seen], expected, rtol=0.02)


def test_each_epoch_sees_every_example_once_in_a_new_order(monkeypatch):
    batches = []

    def spy(params, state, rows, *, arch, cfg, steps):
        used = rows["weights"].sum(-1) > 0
        batches.append(rows["tokens"][used][:, 0].tolist())
        return state, jnp.zeros(())

    monkeypatch.setattr(imitate, "train_step", spy)
    examples = [((i,), (i, i)) for i in range(1, 11)]
    train(config(batch=4, micro_batch=2, epochs=3), examples)
    assert [len(b) for b in batches] == [4, 4, 2] * 3
    epochs = [list(itertools.chain(*batches[i : i + 3])) for i in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(1, 11)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_key_decides_and_nothing_else_does():
    cfg = config(epochs=1)
    first, again, other = train(cfg), train(cfg), train(cfg, seed=6)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(
        first[0]["layers"]["q_proj"]["a"], other[0]["layers"]["q_proj"]["a"]
    )


def test_merging_the_result_equals_carrying_it():
    delta, _ = train(config(lora=training_settings.LoraConfig(ALL, 3, 6.0)))
    tokens = jnp.array([[1, 2, 3, 4, 5, 6]])
    carried, merged = (
        logits(PARAMS, delta, tokens),
        logits(lora.merge(PARAMS, delta), None, tokens),
    )
    np.testing.assert_allclose(carried, merged, atol=1e-4)
    assert np.abs(carried - logits(PARAMS, None, tokens)).max() > 0.1
    # And the scale is folded in: what was trained is what is returned.
    loss = completion_loss(None, EXAMPLES, lora.merge(PARAMS, delta))
    assert loss < completion_loss(None, EXAMPLES)


def test_nothing_kept_is_refused_with_what_to_change():
    with pytest.raises(ValueError, match=r"no edit was kept.*select\.threshold"):
        train(config(), [])


def test_widths_are_rounded_up_so_that_few_programs_are_compiled(monkeypatch):
    widths = []

    def spy(params, state, rows, **_):
        widths.append(rows["tokens"].shape)
        return state, jnp.zeros(())

    monkeypatch.setattr(imitate, "train_step", spy)
    cfg = dataclasses.replace(config(epochs=1), length_multiple=16)
    train(cfg, EXAMPLES)
    train(cfg, [(tuple(range(12)), tuple(range(5)))])
    assert widths == [(2, 2, 16), (2, 2, 32)]
