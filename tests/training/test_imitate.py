"""Fine-tuning on kept edits, against plain loops: without padding, and padded."""

import dataclasses
import functools
import itertools
import json
import math
import re
import subprocess
import sys

import compilations
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trainings

from seal_jax.models import cross_entropy, decoder, key_ranges, lora, placement
from seal_jax.runtime import meshes
from seal_jax.training import imitate, sft_loss, sft_rows
from seal_jax.training.settings import ImitateConfig, LoraConfig

ARCH = decoder.Arch("llama", 40, 16, 2, 2, 1, 8, 24, 64, tied=True)
EOS = 39
ALL = tuple(ARCH.linears())
PARAMS = jax.tree.map(
    lambda leaf: 5 * leaf if leaf.ndim > 1 else leaf,
    decoder.init_params(jax.random.key(0), ARCH),
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
        "lora": LoraConfig(("q_proj", "down_proj"), 3, 6.0),
        "learning_rate": 2e-2,
        "epochs": 3,
        "batch": 4,
        "micro_batch": 2,
        "clip": 1.0,
        "length_multiple": 8,
        "schedule": "linear",
        "rule": "best",
        "prefer": None,
    }
    return ImitateConfig(**(base | changes))


def train(cfg, examples=EXAMPLES, seed=5, params=PARAMS):
    key = jax.random.key(seed)
    tuned = imitate.train(params, examples, key, arch=ARCH, cfg=cfg, eos=EOS)
    return tuned.delta, tuned.losses


@functools.partial(jax.jit, static_argnames="arch")
def logits(params, delta, tokens_BT, *, arch=ARCH):
    """Of whole rows without padding."""
    b, t = tokens_BT.shape
    positions = jnp.broadcast_to(jnp.arange(t), (b, t))
    ranges = key_ranges.causal(jnp.ones((b, t), bool))
    variables = {"params": params} | ({"lora": delta} if delta else {})
    flax_model = decoder.Decoder(arch)
    hidden, _ = flax_model.apply(variables, tokens_BT, positions, ranges)
    return flax_model.apply(variables, hidden, method="unembed")


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


def packed_rows(examples, *, width=8):
    lines = [
        sft_rows.line([*prompt, *completion], first_target=len(prompt), eos=EOS)
        for prompt, completion in examples
    ]
    return sft_rows.pack(lines, width=width, multiple=1, eos=EOS)


def test_only_completions_carry_loss():
    rows = packed_rows(EXAMPLES, width=16)
    assert rows["tokens"].shape == (2, 16)
    delta = lora.init(jax.random.key(1), ARCH, targets=ALL, rank=2)
    delta = jax.tree.map(lambda leaf: leaf + 0.1, delta)
    summed = functools.partial(sft_loss.sum_loss, frozen_head=True)
    loss = jax.jit(lambda r: summed(PARAMS, delta, r, ARCH))
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
    trainings.assert_alike(delta, want)
    assert losses[-1] < losses[0]


def test_micro_batches_equal_the_full_batch():
    whole, whole_losses = train(config(micro_batch=2))
    for micro in (1, 4):
        delta, losses = train(config(micro_batch=micro))
        np.testing.assert_allclose(losses, whole_losses, rtol=1e-5)
        trainings.assert_alike(delta, whole)


def test_empty_rows_of_a_short_batch_change_nothing():
    exact, losses = train(config(batch=3, micro_batch=1), EXAMPLES[:3])
    padded, padded_losses = train(config(), EXAMPLES[:3])
    np.testing.assert_allclose(padded_losses, losses, rtol=1e-5)
    trainings.assert_alike(padded, exact)


def test_the_rate_falls_linearly_over_all_steps(monkeypatch):
    """Adam's first update has the size of the rate; so has every later one with the
    gradient's sign unchanged, whatever its size."""
    seen = []
    real = imitate.train_step

    def spy(params, state, rows, count, each, *, arch, cfg, mesh):
        before = jax.tree.map(np.array, state[0])
        new, loss = real(params, state, rows, count, each, arch=arch, cfg=cfg)
        moved = jax.tree.map(lambda n, o: np.abs(np.array(n) - o).max(), new[0], before)
        seen.append((float(each), max(jax.tree.leaves(moved))))
        return new, loss

    monkeypatch.setattr(imitate, "train_step", spy)
    # One example, again and again, at a rate too small to turn a gradient.
    cfg = config(epochs=5, batch=1, micro_batch=1, learning_rate=1e-4)
    train(cfg, EXAMPLES[:1])
    assert [each for each, _ in seen] == pytest.approx([0.2] * 5)
    expected = 1e-4 * (1 - np.arange(5) / 5)
    np.testing.assert_allclose([m for _, m in seen], expected, rtol=0.02)


def test_each_epoch_sees_every_example_once_in_a_new_order(monkeypatch):
    batches = []

    def spy(params, state, rows, count, each, **_):
        first = (rows["positions"] == 0) & (rows["segments"] >= 0)
        assert not first[count:].any()
        batches.append(rows["tokens"][first].tolist())
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
        first[0]["layers_0"]["q_proj"]["a"], other[0]["layers_0"]["q_proj"]["a"]
    )


def test_merging_the_result_equals_carrying_it():
    delta, _ = train(config())
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


@pytest.mark.parametrize(
    ("longest", "width"), [(1, 16), (16, 16), (17, 32), (33, 64), (48, 64), (65, 128)]
)
def test_rows_come_in_few_widths(longest, width):
    assert imitate.width([3, longest], 16) == width


def test_widths_are_rounded_up_so_that_few_programs_are_compiled(monkeypatch):
    widths = []

    def spy(params, state, rows, count, each, **_):
        widths.append((rows["tokens"].shape, int(count)))
        return state, jnp.zeros(())

    monkeypatch.setattr(imitate, "train_step", spy)
    cfg = config(epochs=1, length_multiple=16, micro_batch=1)
    train(cfg, EXAMPLES)
    train(cfg, [(tuple(range(12)), tuple(range(5)))])
    # Two lines fit a row of the first; there is room for a row each all the same.
    assert widths == [((4, 1, 16), 2), ((4, 1, 32), 1)]


def test_rounds_of_any_number_and_length_of_edits_run_one_program():
    """As long as they are no longer than a row."""
    examples = [((i % 30 + 1,) * (1 + i % 7), (i % 5,) * (i % 6)) for i in range(11)]
    cfg = config(batch=4, micro_batch=1, length_multiple=13)
    with compilations.recorded() as programs:
        for count in (11, 5, 1):
            train(cfg, examples[:count])
    assert [program.name for program in programs].count("train_step") == 1
    assert set(programs) == {p for p in programs if programs.count(p) == 1}


@pytest.mark.parametrize(
    ("name", "optaxs"),
    [
        ("linear", lambda steps: optax.linear_schedule(1.0, 0.0, steps)),
        ("cosine", lambda steps: optax.cosine_decay_schedule(1.0, steps)),
    ],
)
def test_the_schedules_are_those_of_optax(name, optaxs):
    """Bit for bit, as they are compiled: with the number of steps for a constant."""
    for steps in (1, 3, 7, 36, 250):
        done = np.arange(steps, dtype=np.int32)
        got = jax.jit(imitate.SCHEDULES[name])(done, np.float32(1) / np.float32(steps))
        np.testing.assert_array_equal(got, jax.jit(optaxs(steps))(done))


# Packed against padded

# Lengths of 1 to 23 tokens, so that rows hold one line or several.
MIXED = [
    (
        tuple((7 * i + j) % 38 for j in range(1 + (5 * i) % 11)),
        tuple((3 * i + 2 * j) % 38 for j in range((7 * i) % 13)),
    )
    for i in range(11)
]


def padded_loop(cfg, examples, seed=5):
    """A row for each pair, padded to the longest, all logits at once; optax's own."""
    key = jax.random.key(seed)
    rng = np.random.default_rng(jax.random.key_data(key).tolist())
    delta = lora.init(key, ARCH, targets=cfg.lora.targets, rank=cfg.lora.rank)
    steps = cfg.epochs * -(-len(examples) // cfg.batch)
    schedule = optax.linear_schedule(cfg.learning_rate, 0.0, steps)
    optimizer = optax.chain(
        optax.clip_by_global_norm(cfg.clip), optax.adamw(schedule, weight_decay=0.0)
    )
    longest = max(len(p) + len(c) for p, c in examples)
    scale = cfg.lora.alpha / cfg.lora.rank

    @jax.jit
    @jax.value_and_grad
    def gradient(delta, tokens, targets, weights):
        scores = logits(PARAMS, lora.scaled(delta, scale), tokens)
        ce = optax.softmax_cross_entropy_with_integer_labels(scores, targets)
        return jnp.sum(ce * weights) / jnp.sum(weights)

    state, losses = optimizer.init(delta), []
    for _ in range(cfg.epochs):
        order = rng.permutation(len(examples))
        for start in range(0, len(examples), cfg.batch):
            tokens = np.full((cfg.batch, longest + 1), EOS)
            weights = np.zeros((cfg.batch, longest))
            for row, i in enumerate(order[start : start + cfg.batch]):
                prompt, completion = examples[i]
                end = len(prompt) + len(completion)
                tokens[row, :end] = [*prompt, *completion]
                weights[row, len(prompt) - 1 : end] = 1
            loss, grads = gradient(delta, tokens[:, :-1], tokens[:, 1:], weights)
            updates, state = optimizer.update(grads, state, delta)
            delta = optax.apply_updates(delta, updates)
            losses.append(float(loss))
    return lora.scaled(delta, scale), losses


@functools.cache
def padded():
    return padded_loop(config(), MIXED)


@pytest.mark.parametrize("micro, multiple", [(1, 1), (2, 8)])
def test_packed_rows_train_what_padded_ones_do(micro, multiple):
    cfg = config(micro_batch=micro, length_multiple=multiple)
    delta, losses = train(cfg, MIXED)
    want, want_losses = padded()
    np.testing.assert_allclose(losses, want_losses, rtol=1e-5)
    trainings.assert_alike(delta, want)


def test_positions_are_counted():
    cfg = config(micro_batch=1, length_multiple=8)
    key = jax.random.key(5)
    tuned = imitate.train(PARAMS, MIXED, key, arch=ARCH, cfg=cfg, eos=EOS)
    assert tuned.tokens == cfg.epochs * sum(len(p) + len(c) for p, c in MIXED)
    width = -(-max(len(p) + len(c) for p, c in MIXED) // 8) * 8
    assert tuned.computed_tokens % width == 0
    padded = cfg.epochs * len(MIXED) * width
    assert tuned.tokens <= tuned.computed_tokens < padded


# Programs

# Rows of a micro-batch, their width, and columns whose logits are held at a time. No
# product of a model's sizes, so that an array's shape tells what it is.
B, T, COLUMNS = 14, 36, 5
WIDE = dataclasses.replace(ARCH, vocab=202)


def step_program(mesh=None):
    """Sizes of all arrays of a device's program for two micro-batches; its operations.

    Called with `cross_entropy.CHUNK` at `COLUMNS` of a micro-batch's columns.
    """
    cfg = config(batch=2 * B, micro_batch=B)
    lines = [sft_rows.line(range(30), first_target=3, eos=EOS)] * 20
    rows, count = imitate.micro_batches(
        lines, cfg, width=T, shards=meshes.shards(mesh), eos=EOS
    )
    params = decoder.init_params(jax.random.key(0), WIDE)
    if mesh is not None:
        params = jax.device_put(params, placement.param_shardings(WIDE, mesh))
    state = meshes.put(imitate.begin(jax.random.key(1), arch=WIDE, cfg=cfg), mesh)
    rows, count, each = meshes.put((rows, count, np.float32(0.25)), mesh)
    program = imitate.train_step.lower(
        params, state, rows, count, each, arch=WIDE, cfg=cfg, mesh=mesh
    ).compile()
    shapes = re.findall(r"\b[a-z]+\d+\[([\d,]+)\]", program.as_text())
    sizes = sorted({tuple(map(int, shape.split(","))) for shape in shapes})
    return sizes, program.cost_analysis()["flops"]


@functools.cache
def whole_program():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "CHUNK", B * COLUMNS * WIDE.vocab)
        return step_program()


def logits_of(sizes, vocab=WIDE.vocab):
    """Sizes of arrays over the vocabulary but for the head's own."""
    return [s for s in sizes if vocab in s and WIDE.width not in s]


def test_a_step_holds_the_logits_of_a_chunk():
    sizes, _ = whole_program()
    # What each device of a mesh must not have is there where there is but one.
    assert (B, T, ARCH.width) in sizes and (B * T, ARCH.width) in sizes
    assert (B * COLUMNS, WIDE.vocab) in logits_of(sizes)
    most = max(math.prod(size) for size in logits_of(sizes))
    assert most == B * COLUMNS * WIDE.vocab < B * T * WIDE.vocab


# Meshes

CHILD = """
import json, sys
import jax, numpy as np
import test_imitate as t
from seal_jax.models import cross_entropy, placement
from seal_jax.runtime import meshes
from seal_jax.training import imitate

def trained(data, model):
    mesh = meshes.make_mesh(data=data, model=model)
    placed = jax.device_put(t.PARAMS, placement.param_shardings(t.ARCH, mesh))
    tuned = imitate.train(placed, t.MIXED, jax.random.key(5), arch=t.ARCH,
                          cfg=t.config(micro_batch=1), eos=t.EOS, mesh=mesh)
    leaves = map(np.asarray, jax.tree.leaves(tuned.delta))
    np.savez(f"{sys.argv[1]}/{data}x{model}.npz", *leaves)
    return mesh, tuned.losses

both = [trained(*case) for case in json.loads(sys.argv[2])]
cross_entropy.CHUNK = t.B * t.COLUMNS * t.WIDE.vocab
jax.clear_caches()
print(json.dumps([[losses, *t.step_program(mesh)] for mesh, losses in both]))
"""
MESHES = [(2, 1), (2, 2)]


@pytest.fixture(scope="module")
def on_meshes(tmp_path_factory, root, child_env):
    """Of a child process: leaves, losses and the program of each mesh."""
    env = child_env | {"JAX_NUM_CPU_DEVICES": "4"}
    env["PYTHONPATH"] += f":{root / 'tests/training'}"
    folder = tmp_path_factory.mktemp("meshes")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, str(folder), json.dumps(MESHES)],
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    return {
        (data, model): (list(np.load(folder / f"{data}x{model}.npz").values()), *own)
        for (data, model), own in zip(MESHES, told, strict=True)
    }


@pytest.mark.parametrize("data, model", MESHES)
def test_a_mesh_trains_what_one_device_does(data, model, on_meshes):
    delta, losses = padded()
    leaves, mesh_losses, sizes, operations = on_meshes[data, model]
    np.testing.assert_allclose(mesh_losses, losses, rtol=1e-5)
    tree = jax.tree.structure(delta).unflatten(leaves)
    trainings.assert_alike(tree, delta)

    # Each device computes its share of the rows: of all there is the batch alone.
    assert [B // data, T, ARCH.width] in sizes
    whole = [size for size in sizes if B in size or B * T in size]
    assert whole == [[2, B, T]]
    # Besides, a share of each row's products where weights are cut too.
    assert operations < (0.52 if model == 1 else 0.3) * whole_program()[1]
    # And no more logits than its part of a chunk.
    held = logits_of(sizes, WIDE.vocab // model)
    assert [B // data * COLUMNS, WIDE.vocab // model] in held
    most = max(map(math.prod, held))
    assert most == B // data * COLUMNS * WIDE.vocab // model
    assert model == 1 or not logits_of(sizes)
