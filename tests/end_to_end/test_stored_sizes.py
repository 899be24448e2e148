"""The inner loop's sizes that a workdir began with, on this machine and on another."""

import dataclasses
import types

import pytest

from seal_jax.experiment import workdirs
from seal_jax.training import inner
from seal_jax.training.settings import PlanConfig

CHUNKED = PlanConfig(1, 64, 256, slots=9, active=3, chunk_tokens=64)
BY_SLOT = PlanConfig(1, 64, 256, slots=9, active=9, by_slot=True)
# As this machine would have them now: others.
NOW = {
    False: PlanConfig(1, 64, 512, slots=20, active=4, chunk_tokens=64),
    True: PlanConfig(1, 64, 512, slots=20, active=20, by_slot=True),
}


@pytest.mark.parametrize("begun", [CHUNKED, BY_SLOT], ids=["chunks", "by slot"])
@pytest.mark.parametrize("by_slot", [False, True])
def test_a_run_goes_on_in_its_pools_with_places_as_here(begun, by_slot):
    first = {"plan": dataclasses.asdict(begun), "pool": 7, "shards": 1}
    journal = types.SimpleNamespace(cached=lambda name, make: first)
    cfg = inner.EngineConfig(("q_proj",), 16, 32.0, NOW[by_slot], pool=30)
    got = workdirs.first_sizes(journal, cfg, shards=1)
    assert got.pool == 7
    assert (got.plan.slots, got.plan.step_tokens) == (9, 256)
    assert got.plan.by_slot == by_slot
    if begun.by_slot == by_slot:
        assert got.plan == begun
    else:
        places = (9, 1) if by_slot else (4 * 4, 4)
        assert (got.plan.places, got.plan.chunks) == places


def test_a_run_that_knew_no_places_by_slot_goes_on_without():
    plan = dataclasses.asdict(CHUNKED)
    del plan["by_slot"]
    first = {"plan": plan, "pool": 7, "shards": 1}
    journal = types.SimpleNamespace(cached=lambda name, make: first)
    cfg = inner.EngineConfig(("q_proj",), 16, 32.0, NOW[False], pool=30)
    assert workdirs.first_sizes(journal, cfg, shards=1).plan == CHUNKED
