"""Adapters of the API against their solo training, against PEFT, and re-batched."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trainings
from golden_models import assert_one_line
from safetensors.numpy import load_file

import seal_jax as seal
from seal_jax.api import lines, settings, sizes, training
from seal_jax.models import lora
from seal_jax.runtime import prng
from seal_jax.training import capacity, inner, packed, plan, plan_arrays
from seal_jax.training.settings import LossConfig

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SETTINGS = dict(rank=4, learning_rate=0.02, epochs=3, progress=False)
ADAPT = jax.jit(inner.adapt, static_argnums=(6, 7))


def solo(policy, text):
    """`inner.adapt` on one text alone: the definition, written out by hand."""
    (laid,) = lines.encode(policy, [text])
    job = plan.Job(
        laid.ids,
        (0, *laid.words()),
        epochs=3,
        learning_rate=0.02,
        clip=1.0,
        loss=LossConfig("masked", 2, 0),
        given=laid.given,
    )
    steps = []
    for rows in plan_arrays.rows(job, eos=policy.eos, multiple=1):
        padded = [
            {k: np.pad(v, (0, 32 - len(v))) for k, v in row.items()} for row in rows
        ]
        steps.append(jax.tree.map(lambda *x: np.stack(x), *padded))
    total = len(steps)
    steps += [steps[0]] * (9 - total)
    stacked = jax.tree.map(lambda *x: np.stack(x), *steps)
    rates = np.pad(job.rates(), (0, 9 - total))
    key = prng.take(prng.fold(prng.root(0), *([w] for w in laid.words())), 0)
    fresh = lora.init(key, policy.arch, targets=("q_proj", "v_proj"), rank=4)
    cfg = inner.EngineConfig(("q_proj", "v_proj"), 4, 8.0, None, 1)  # pyright: ignore
    slot = ADAPT(
        *(policy.params, fresh, stacked, rates, jnp.float32(1.0), jnp.int32(total)),
        *(policy.arch, cfg),
    )
    return lora.scaled(slot.adapter, 2.0), float(slot.loss_sum) / total


def test_every_adapter_equals_its_solo_training(model, texts, adapters):
    assert len(adapters) == len(texts) and adapters.finite.all()
    assert (adapters.rank, adapters.targets) == (4, ("q_proj", "v_proj"))
    for text, adapter in zip(texts, adapters, strict=True):
        tree, loss = solo(model.policy, text)
        trainings.assert_alike(adapter.tree, tree)
        assert adapter.loss == pytest.approx(loss, rel=1e-4)
    # That tells apart: none is another's.
    b = adapters.tree["layers_0"]["q_proj"]["b"]
    assert min(np.abs(b[i] - b[j]).max() for i in range(6) for j in range(i)) > 0.01


def test_neighbours_order_and_pools_do_not_matter(model, texts, adapters):
    back = texts[::-1]
    again = seal.train_adapters(model, back, **SETTINGS, pool=2)
    trainings.assert_stacks_alike(again.tree, adapters[::-1].tree)
    other = seal.train_adapters(model, back, **SETTINGS, pool=2, seed=1)
    gaps = jax.tree.map(lambda x, y: np.abs(x - y).max(), again.tree, other.tree)
    assert min(jax.tree.leaves(gaps)) > 0.01


def test_finished_ones_come_before_the_next_pool_trains(
    model, texts, adapters, monkeypatch
):
    trained, original = [], packed.train
    monkeypatch.setattr(
        packed,
        "train",
        lambda *a, **k: trained.append(len(a[1])) or original(*a, **k),
    )
    stream = seal.iter_adapters(model, texts, **SETTINGS, pool=2)
    assert trained == []
    first, adapter = next(stream)
    # Most steps first: three lines, three epochs.
    assert (first, trained) == (4, [2])
    rest = list(stream)
    assert trained == [2, 2, 2]
    assert sorted([first, *(i for i, _ in rest)]) == list(range(len(texts)))
    for i, one in [(first, adapter), *rest]:
        trainings.assert_alike(one.tree, adapters[i].tree)
        # Not a view of its pool.
        assert all(leaf.base is None for leaf in jax.tree.leaves(one.tree))


def test_an_adapter_equals_pefts(model, monkeypatch):
    """With the golden run's fresh adapter and order of lines, the golden adapter."""
    golden = json.loads((GOLDEN / "inner" / "inner.json").read_text())

    def tree(name):
        nested: dict = {}
        for key, leaf in load_file(GOLDEN / "inner" / f"{name}.safetensors").items():
            _, target, side = key.split("/")
            for i, of_layer in enumerate(leaf):
                layer = nested.setdefault(f"layers_{i}", {})
                layer.setdefault(target, {})[side] = of_layer
        return nested

    assert golden["model"] == "../qwen2/model"
    tokenizer = model.policy.tokenizer
    texts = [tokenizer.decode(ids) for ids in golden["lines"]]
    steps = [(i,) for i in golden["order"]]
    monkeypatch.setattr(plan.Job, "batches", lambda job: steps)
    initial = jax.tree.map(jnp.asarray, tree("initial"))
    monkeypatch.setattr(lora, "init", lambda *a, **k: initial)
    packed.program.cache_clear()
    (adapter,) = seal.train_adapters(
        model,
        [texts],
        rank=golden["rank"],
        alpha=golden["alpha"],
        learning_rate=golden["lr"],
        epochs=4,
        clip=golden["clip"],
        progress=False,
    )
    packed.program.cache_clear()  # It holds the fresh adapter.
    scale = golden["alpha"] / golden["rank"]
    final, begin = (lora.scaled(tree(name), scale) for name in ("masked", "initial"))
    moved = max(
        np.abs(a - b).max()
        for a, b in zip(jax.tree.leaves(final), jax.tree.leaves(begin), strict=True)
    )
    assert moved > 3e-3
    trainings.assert_alike(adapter.tree, final, atol=0.01 * moved)
    losses = golden["modes"]["masked"]["losses"]
    assert adapter.loss == pytest.approx(np.mean(losses), rel=2e-5)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"targets": ("q_prj",)}, ["'q_prj'", "did you mean 'q_proj'?", "'all'"]),
        ({"targets": ()}, ["targets=[]", "must name one or more of"]),
        ({"targets": ("q_proj", "q_proj")}, ["must differ"]),
        ({"rank": 0}, ["train_adapters.rank=0", "at least 1"]),
        ({"rank": 17}, ["train_adapters.rank=17", "1..16", "use 16"]),
        ({"rank": "16"}, ["rank='16'", "of type int"]),
        ({"learning_rat": 1.0}, ["learning_rat", "did you mean", "learning_rate?"]),
        ({"learning_rate": float("nan")}, ["learning_rate=nan", "at least 1e-12"]),
        ({"epochs": 0}, ["epochs=0"]),
        ({"schedule": "linaer"}, ["schedule='linaer'", "'linear'"]),
        ({"seed": -1}, ["seed=-1"]),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(model, texts, changes, parts):
    for call in (seal.train_adapters, seal.iter_adapters):
        with pytest.raises(ValueError) as caught:
            call(model, texts, **SETTINGS | changes)
        told = [p.replace("train_adapters", call.__name__) for p in parts]
        assert_one_line(caught, *told)


def test_every_setting_reaches_the_jobs(model, monkeypatch):
    seen = []
    monkeypatch.setattr(sizes, "training", lambda a, c, j, m: seen.append((c, j)))
    more = dict(batch=2, warmup=1, schedule="cosine", clip=0.5, learning_rate=0.1)
    seal.iter_adapters(
        *(model, [["Ada bakes.", ("Ad", "a")]]),
        **dict(targets="all", rank=np.int64(3), epochs=np.int32(2), seed=7, **more),
    )
    ((chosen, (job,)),) = seen
    assert set(chosen.targets) == set(model.policy.arch.linears())
    assert (chosen.rank, chosen.scale_alpha) == (3, 6.0)
    (laid,) = lines.encode(model.policy, [["Ada bakes.", ("Ad", "a")]])
    assert job == plan.Job(
        *(laid.ids, (7, *laid.words())),
        **dict(epochs=2, loss=LossConfig("masked", 2, 0), given=(1, 2), **more),
    )


# Sizes


@pytest.mark.parametrize(
    ("count", "size"), [(1, 1), (2, 2), (3, 3), (5, 6), (7, 8), (9, 12), (100, 128)]
)
def test_counts_are_rounded_to_few_sizes(count, size):
    assert sizes.rounded(count) == size
    assert len({sizes.rounded(n) for n in range(1, 4097)}) == 24


def job(length, count=1):
    line = (1,) * length
    return plan.Job(
        (line,) * count, (0,), 2, 0.1, 1.0, LossConfig("masked", 2, 0), given=()
    )


@pytest.mark.parametrize(
    ("jobs", "want"),
    [
        # (row, step, slots, pool)
        ([job(20)] * 100, (64, 3072, 192, 128)),
        ([job(20)] * 3, (64, 128, 8, 3)),
        ([job(200)] * 3, (256, 768, 6, 3)),
        ([job(20)] * 10_000, (64, 4096, 256, 2048)),
    ],
)
def test_steps_and_slots_fit_the_work(model, monkeypatch, jobs, want):
    monkeypatch.setattr(capacity, "measure", lambda *a: capacity.Memory(1, 1, 1, 1))
    cfg = sizes.training(model.policy.arch, settings.TrainSettings(), jobs, None)
    found = cfg.plan.row_tokens, cfg.plan.step_tokens, cfg.plan.slots, cfg.pool
    assert found == want


def test_what_does_not_fit_is_told_in_the_words_of_the_api(model, monkeypatch):
    monkeypatch.setattr(capacity, "measure", lambda *a: capacity.Memory(2**60, 1, 1, 1))
    with pytest.raises(ValueError) as caught:
        seal.train_adapters(model, ["Ada bakes."], **SETTINGS)
    assert_one_line(caught, "can be used", "lower rank")
    assert "inner." not in str(caught.value)


def test_keywords_and_settings_are_the_same_names():
    assert set(settings.TrainOptions.__annotations__) == {
        field.name for field in dataclasses.fields(settings.TrainSettings)
    }
    for name in settings.TrainOptions.__annotations__:
        assert f"\n      {name}" in training.train_adapters.__doc__ or (
            name in training.train_adapters.__doc__
        )
