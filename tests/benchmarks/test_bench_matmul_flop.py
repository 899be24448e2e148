"""The FLOP that a program must do, against what compiled programs do."""

import dataclasses
import functools
import importlib

import jax
import jax.numpy as jnp
import pytest

from seal_jax.models import decoder, hf_config, kv_cache, lora
from seal_jax.training import inner, packed
from seal_jax.training.settings import PlanConfig
from seal_kernels.lora_matmul import xla

TARGETS = ("q_proj", "o_proj", "down_proj")


@pytest.fixture(scope="module")
def load(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module


@pytest.fixture(scope="module")
def flop(load):
    return load("matmul_flop")


@pytest.fixture(scope="module")
def arch(load):
    return hf_config.parse(load("common").SHAPES["tiny"].config(), dtype="float32")


@pytest.fixture(scope="module")
def count(load):
    """FLOP of the matmuls of a function, compiled here."""

    def run(function, *args, loops=None):
        told = load("hlo_cost").Told(loops=loops or {})
        # By XLA's usual passes: its preset for fast compiling leaves some out, and
        # with them what it finds again.
        usual = {"xla_cpu_opt_preset": "CPU_OPT_PRESET_DEFAULT"}
        text = jax.jit(function).lower(*args).compile(usual).as_text()
        return load("roofline").report(text, told).total.flop

    return run


def test_by_hand(flop, arch):
    # Width 32, two layers, head size 16: one head of keys, two of queries; ff 64.
    per_layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 64
    assert flop.linears(arch, 3) == 2 * 3 * 2 * per_layer
    assert flop.head(arch, 5) == 2 * 5 * 64 * 32
    assert flop.low_rank(arch, 3, 4, ("q_proj", "down_proj")) == (
        2 * 3 * 2 * 4 * (32 + 32 + 64 + 32)
    )
    # Five tiles' gradients into those of three adapters.
    assert flop.tile_sums(arch, 5, 3, 4, ("q_proj",)) == 2 * 5 * 2 * 4 * (32 + 32) * 3
    assert flop.attention(arch, 10, 2) == 2 * 2 * 10 * 2 * 2 * 16
    # Of the first layer: q, k, v and q's adapter; k and v have none, so that their own
    # slopes from ten pairs are not wanted either.
    assert flop.unused_slopes(arch, 3, 10, 4, TARGETS) == (
        2 * 3 * (32 * 32 + 2 * 32 * 16 + 4 * 32) + 2 * 2 * 10 * 2 * 16
    )


@pytest.mark.parametrize(
    "width, block, pairs", [(4, 8, 16), (8, 4, 4 * 4 + 4 * 8), (6, 4, 16 + 2 * 6)]
)
def test_pairs_are_those_of_blocks_up_to_their_own_end(flop, width, block, pairs):
    assert flop.causal_pairs(width, block) == pairs


@pytest.fixture(autouse=True)
def products_are_matmuls(monkeypatch):
    """Small ones too: a CPU writes them out as sums, which nothing here counts."""
    monkeypatch.setattr(xla, "MOST_TERMS", 0)


def test_a_packed_step_does_what_it_must(flop, arch, count):
    arch = dataclasses.replace(arch, layers=1)
    cfg = inner.EngineConfig(TARGETS, 4, 8.0, PlanConfig(16, 64, 128, 6, 4), pool=8)
    counted = count(
        functools.partial(packed.run_block, arch=arch, cfg=cfg),
        *packed.arguments(arch, cfg),
        # Two steps.
        loops={r"run_block\)/while/body/while$": 1, r"run_block\)/while$": 2},
    )
    want = flop.training(
        arch,
        tokens=128,
        head_tokens=128,
        # Two rows of 64 positions, short enough for all scores at once.
        pairs=2 * 64 * 64,
        rank=4,
        targets=TARGETS,
        # XLA finds the scores of the forward pass again.
        recomputed=False,
    )
    assert counted == 2 * want


def test_reading_prompts_does_what_it_must(flop, arch, count):
    rows, width = 3, 8

    def read(params, delta, tokens_PT, start_PT):
        hidden_PTD, cache = kv_cache.read(params, delta, arch, tokens_PT, start_PT)
        return decoder.logits(params, arch, hidden_PTD[:, -1]), cache

    params = jax.eval_shape(lambda: decoder.init_params(jax.random.key(0), arch))
    delta = jax.eval_shape(
        lambda: lora.init(jax.random.key(0), arch, targets=TARGETS, rank=4)
    )
    tokens = jax.ShapeDtypeStruct((rows, width), jnp.int32)
    counted = count(read, params, delta, tokens, tokens)
    want = flop.reading(
        arch,
        tokens=rows * width,
        head_tokens=rows,
        pairs=rows * width * width,
        rank=4,
        targets=TARGETS,
    )
    assert counted == want
