"""Sizes are chosen from what the compiled loop takes."""

import dataclasses
import functools

import jax
import pytest
import tiny_model

from seal_jax.models import decoder
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import config_rules, meshes
from seal_jax.training import capacity, packed
from seal_jax.training.settings import EngineOptions, InnerConfig

ARCH = decoder.Arch("llama", 64, 32, 1, 2, 1, 16, 48, 128, tied=True)
# Sizes that leave a small device a choice: several adapters are as large as the base.
OPEN = {"step_tokens": 0, "slots": 0, "active": 0, "pool": 0}


def wanted(**changes) -> InnerConfig:
    """The inner loop of a config, with these sizes; what is not given is open."""
    values = tiny_model.values("model")
    values["inner"] |= {"tile": 4, "row_tokens": 64} | OPEN | changes
    # As large as two projections of rank 8, and sooner compiled.
    values["inner"]["lora"] |= {"targets": ("q_proj",), "rank": 14}
    return config_rules.build(PassageRounds, values).inner


def choose(limit, adapters=200, **changes):
    return capacity.choose(ARCH, wanted(**changes), limit=limit, adapters=adapters)


def largest(**sizes) -> capacity.Memory:
    cfg = capacity.build(wanted(**sizes), step_tokens=4096, adapters=200)
    return capacity.measure(ARCH, cfg)


def test_what_fits_is_taken_whole():
    cfg, memory = choose(10**12)
    sizes = cfg.plan
    assert (sizes.step_tokens, sizes.slots, sizes.active) == (4096, 80, 80)
    assert cfg.pool == 200
    assert memory.total == largest().total


def test_the_parts_are_those_of_the_arrays():
    cfg, memory = choose(10**12)
    one = cfg.rank * sum(sum(ARCH.linears()[t]) for t in cfg.targets) * ARCH.layers
    slots = cfg.plan.slots
    assert memory.slots == slots * (3 * 4 * one + 4 + 4)
    assert memory.pool == cfg.pool * (4 * one + 4 + 1)
    params = jax.eval_shape(lambda: decoder.init_params(jax.random.key(0), ARCH))
    assert memory.base == 4 * sum(x.size for x in jax.tree.leaves(params))
    assert memory.other > 0
    assert "base" in memory.line() and "MB" in memory.line()


def test_the_pool_shrinks_first_then_the_slots_then_the_step():
    whole = largest()
    seen = []
    for share in (0.99, 0.6, 0.3):
        cfg, memory = choose(int(whole.total * share))
        assert memory.total <= whole.total * share
        assert capacity.measure(ARCH, cfg) == memory
        seen.append((cfg.plan.step_tokens, cfg.plan.slots, cfg.pool))
    assert seen[0][0] == 4096 and seen[0][1] == 80 and seen[0][2] < 200
    assert seen == sorted(seen, reverse=True)
    assert seen[-1][0] < 4096


def test_a_chunk_has_places_for_its_share_of_the_slots_and_more():
    cfg = capacity.build(wanted(chunk_tokens=512), step_tokens=2048, adapters=200)
    assert (cfg.plan.slots, cfg.plan.active, cfg.plan.places) == (40, 12, 48)
    cfg = capacity.build(wanted(chunk_tokens=512), step_tokens=512, adapters=200)
    assert (cfg.plan.slots, cfg.plan.active, cfg.plan.places) == (10, 10, 10)


def test_where_adapters_are_read_in_place_steps_have_no_chunks(monkeypatch):
    """Nor a number of places in each, whatever the config says of them."""
    sizes = wanted(chunk_tokens=512, active=2)
    cfg = capacity.build(sizes, step_tokens=2048, adapters=200, by_slot=True)
    assert (cfg.plan.chunks, cfg.plan.chunk_tokens, cfg.plan.by_slot) == (1, 0, True)
    assert cfg.plan.slots == cfg.plan.active == cfg.plan.places == 42
    # Without chunks it is the number of adapters in a step, and so is kept.
    sizes = dataclasses.replace(sizes, chunk_tokens=0)
    cfg = capacity.build(sizes, step_tokens=2048, adapters=200, by_slot=True)
    assert (cfg.plan.active, cfg.plan.places) == (2, 42)
    # What is chosen asks what the policy's kernel does here.
    asked = []

    def measured(arch, cfg, mesh=None):
        del arch, mesh
        return capacity.Memory(base=1, slots=cfg.plan.slots, pool=1, other=1)

    monkeypatch.setattr(capacity, "measure", measured)
    monkeypatch.setattr(capacity, "base_bytes", lambda arch, mesh: 1)
    for by_slot in (True, False):
        monkeypatch.setattr(
            capacity.lora_op,
            "reads_in_place",
            lambda *ours, by_slot=by_slot: asked.append(ours) or by_slot,
        )
        cfg, _ = choose(10**6, chunk_tokens=16, active=2)
        assert cfg.plan.by_slot == by_slot
        assert cfg.plan.chunks == (1 if by_slot else 256)
    # The config's number is that of a chunk, so that fewer slots can be taken.
    monkeypatch.setattr(capacity.lora_op, "reads_in_place", lambda *asked: True)
    cfg, memory = choose(40, chunk_tokens=16, active=60, step_tokens=4096)
    assert memory.total <= 40 and cfg.plan.slots < 60 and cfg.plan.by_slot
    widths = {*ARCH.linears()["q_proj"]}
    assert set(asked) == {(ARCH.kernel, *sorted({14, *widths}))}
    # With the stacks beneath; and on a mesh no kernel can be cut.
    sizes, frozen = wanted(), EngineOptions(frozen_rank=3, frozen_rows=1)
    asked.clear()
    by_slot = functools.partial(capacity.reads_in_place, ARCH, sizes)
    monkeypatch.setattr(
        capacity.lora_op, "reads_in_place", lambda *ours: asked.append(ours) or True
    )
    assert by_slot(None, frozen) and asked == [(ARCH.kernel, *sorted({17, *widths}))]
    assert not by_slot(meshes.make_mesh(data=1))


def test_copies_that_are_multiplied_with_count_with_the_slots():
    cfg = capacity.build(wanted(slots=8), step_tokens=128, adapters=8)
    by_slot = dataclasses.replace(
        cfg, plan=dataclasses.replace(cfg.plan, active=8, by_slot=True)
    )
    one, other = (capacity.counted(ARCH, each) for each in (cfg, by_slot))
    # Weights and moments, and in float32 as much as the weights again.
    assert 3 * other.slots == pytest.approx(4 * one.slots, rel=0.01)


@pytest.mark.parametrize(
    ("chunk", "whole", "all_steps"),
    [(16, 4096, {4096, 2048, 1024}), (1536, 4608, {4608, 1536, 768})],
)
def test_steps_that_are_chosen_are_of_whole_chunks(
    monkeypatch, chunk, whole, all_steps
):
    seen = []

    def measured(arch, cfg, mesh=None):
        del arch, mesh
        seen.append(cfg.plan.step_tokens)
        return capacity.Memory(base=10, slots=1, pool=1, other=cfg.plan.step_tokens)

    monkeypatch.setattr(capacity, "measure", measured)
    monkeypatch.setattr(capacity, "base_bytes", lambda arch, mesh: 10)
    cfg, _ = choose(10**12, chunk_tokens=chunk)
    assert cfg.plan.step_tokens == whole == cfg.plan.chunks * chunk
    cfg, _ = choose(min(all_steps) + 100, chunk_tokens=chunk)
    assert set(seen) == all_steps


def test_chunks_that_no_open_step_can_have_are_refused():
    with pytest.raises(ValueError, match=r"chunk_tokens=96 must be .*row_tokens=64"):
        wanted(chunk_tokens=96)


def test_what_the_config_fixes_is_kept():
    whole = largest()
    cfg, _ = choose(int(whole.total * 0.97), slots=64, active=10)
    assert (cfg.plan.slots, cfg.plan.active) == (64, 10)
    cfg, _ = choose(int(whole.total * 0.97), pool=30)
    assert cfg.pool == 30


def test_a_config_too_large_says_what_would_fit():
    fixed = {"step_tokens": 128, "slots": 400, "active": 4, "pool": 4}
    limit = 3 * 10**6
    with pytest.raises(ValueError) as caught:
        choose(limit, **fixed)
    message = str(caught.value)
    assert "\n" not in message
    assert "inner.slots=400" in message and "3 MB can be used" in message
    fits = int(message.rsplit("inner.slots=", 1)[1].split()[0])
    cfg, memory = choose(limit, **(fixed | {"slots": fits}))
    assert cfg.plan.slots == fits
    assert memory.total <= limit
    # And it is not far too careful.
    more = dataclasses.replace(cfg.plan, slots=int(fits * 1.1) + 1)
    over = capacity.measure(ARCH, dataclasses.replace(cfg, plan=more))
    assert over.total > limit


def test_a_device_for_nothing_but_the_base_is_said_so():
    limit = capacity.base_bytes(ARCH) + 1
    with pytest.raises(ValueError, match=r"lower inner\.lora\.rank"):
        choose(limit, step_tokens=64)


def test_a_base_too_large_is_said_before_anything_is_compiled(monkeypatch):
    monkeypatch.setattr(capacity, "measure", None)
    limit = capacity.base_bytes(ARCH) - 1
    with pytest.raises(ValueError, match=r"the base takes .* float32.* mesh\.model"):
        choose(limit)


def test_a_pool_needs_no_more_rows_than_there_are_adapters():
    cfg, _ = choose(10**12, adapters=7)
    assert cfg.pool == 7


def test_measuring_compiles_the_program_that_runs():
    cfg, _ = choose(10**12, adapters=7)
    misses = packed.program.cache_info().misses
    packed.program(ARCH, cfg, None)
    assert packed.program.cache_info().misses == misses


def test_training_that_fits_is_not_enough(monkeypatch):
    """Generation holds the base and all shards' adapters, the stacks twice."""
    memory = capacity.Memory(base=100, slots=10, pool=10, other=30)
    assert capacity.answering(memory, 1) == 110
    assert capacity.answering(memory, 4) == 180
    memory = memory._replace(frozen=60)
    assert capacity.answering(memory, 1) == 230
    monkeypatch.setattr(capacity, "measure", lambda *args: memory)
    monkeypatch.setattr(capacity, "base_bytes", lambda arch, mesh: 100)
    sizes = {"step_tokens": 64, "slots": 1, "active": 1, "pool": 1}
    assert choose(230, **sizes)[1] == memory
    with pytest.raises(ValueError, match="generation after training needs 0 MB"):
        choose(229, **sizes)
