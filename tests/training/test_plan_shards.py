"""A process lays what its own shards train, and as many blocks as the others."""

import threading

import jax
import numpy as np
import pytest
import test_inner as t
import test_plan_arrays as arrays

from seal_jax.runtime import distributed, meshes
from seal_jax.training import inner, packed, plan, plan_arrays, plan_shards

SECONDS = 60
JOBS = arrays.make_jobs([[5, 9], [3], [12, 2, 7], [4, 4, 4, 4], [8]])
SHARES = [[0, 3], [1, 2, 4]]
CFG = inner.EngineConfig(("q_proj",), 2, 4.0, arrays.SMALL, pool=5)


@pytest.fixture
def laid(monkeypatch):
    """The jobs whose rows are laid."""
    seen = []
    real = plan_arrays.rows

    def rows(job, **kwargs):
        seen.append(JOBS.index(job))
        return real(job, **kwargs)

    monkeypatch.setattr(plan_arrays, "rows", rows)
    monkeypatch.setattr(plan_arrays, "BLOCK", 2)
    return seen


def blocks(shares=SHARES, frozen_of=(), **changes):
    changes |= {"frozen_of": list(frozen_of)}
    return list(plan_shards.blocks(JOBS, shares, CFG, eos=0, mesh=None, **changes))


def own(monkeypatch, shards, others=0):
    monkeypatch.setattr(meshes, "own_shards", lambda mesh, first=False: shards)
    monkeypatch.setattr(distributed, "everyone", lambda value: [value, others])


def assert_same(block, want):
    assert block.length == want.length
    for got, leaf in zip(block.steps, want.steps, strict=True):
        np.testing.assert_array_equal(got, leaf)


@pytest.mark.parametrize("shard", [0, 1])
def test_only_own_shards_are_laid(shard, laid, monkeypatch):
    own(monkeypatch, [shard])
    mine = [JOBS[j] for j in SHARES[shard]]
    got = blocks()
    assert sorted(set(laid)) == SHARES[shard]
    want = list(plan_arrays.blocks(mine, arrays.SMALL, eos=0))
    assert len(got) == len(want) > 1
    for of_shards, block in zip(got, want, strict=True):
        assert list(of_shards) == [shard]
        assert_same(of_shards[shard], block)


def test_a_process_idles_until_the_last_one_is_done(laid, monkeypatch):
    del laid
    own(monkeypatch, [0], others=9)
    got = blocks()
    assert len(got) == 9
    idle = plan_shards.idle_block(CFG, eos=0)
    lengths = [of_shards[0].length for of_shards in got]
    assert lengths[-1] == 0 < lengths[0]
    assert_same(got[-1][0], idle)


def test_who_has_all_shards_asks_nobody(laid, monkeypatch):
    own(monkeypatch, [0, 1])

    def everyone(value):
        raise AssertionError("there is nobody else")

    monkeypatch.setattr(distributed, "everyone", everyone)
    monkeypatch.setattr(plan_arrays, "count_blocks", everyone)
    got = blocks()
    assert sorted(set(laid)) == list(range(len(JOBS)))
    for shard, share in enumerate(SHARES):
        mine = [JOBS[j] for j in share]
        want = list(plan_arrays.blocks(mine, arrays.SMALL, eos=0))
        for of_shards, block in zip(got, want, strict=False):
            assert_same(of_shards[shard], block)


def test_each_job_goes_with_its_own_frozen_row_and_teachers(monkeypatch):
    own(monkeypatch, [1], others=1)
    seen = []

    def record(jobs, cfg, *, eos, frozen_of, anchored, shelved, short):
        assert short is None
        seen.append((frozen_of, shelved))
        return iter(())

    monkeypatch.setattr(plan_arrays, "blocks", record)
    blocks(frozen_of=[4, 3, 2, 1, 0])
    blocks(frozen_of=[], shelved=[[1], [6], [9], [1], [20]])
    assert seen == [([3, 2, 0], None), (None, [[6], [9], [20]])]


@pytest.mark.parametrize("block", [1, 2, 64])
def test_blocks_are_counted_by_lengths(block, monkeypatch):
    monkeypatch.setattr(plan_arrays, "BLOCK", block)
    counted = plan_arrays.count_blocks(JOBS, arrays.SMALL)
    assert counted == len(list(plan_arrays.blocks(JOBS, arrays.SMALL, eos=0)))


def test_totals_are_over_all_processes(laid, monkeypatch):
    del laid
    own(monkeypatch, [0], others=[100, 10, 1, 1000])
    totals = plan_shards.Totals(None)
    for of_shards in plan_shards.blocks(
        JOBS, [range(len(JOBS))], CFG, eos=0, mesh=None, frozen_of=[]
    ):
        totals.add(of_shards)
    tokens, updates, steps, computed = totals.of_all()
    assert updates == 10 + sum(job.total for job in JOBS)
    needs = [plan.needs(job, arrays.SMALL) for job in JOBS]
    assert steps == 1 + len(list(plan.schedule(needs, arrays.SMALL)))
    assert tokens > 100
    assert computed == 1000 + (steps - 1) * arrays.SMALL.step_tokens


def test_the_next_block_is_laid_while_the_device_runs_one(monkeypatch):
    """Before anybody waits for this one, even where a call waits for the device."""
    monkeypatch.setattr(plan_arrays, "BLOCK", 4)
    events = [threading.Event() for _ in range(100)]
    real, ran = plan_arrays.blocks, []

    def blocks(*args, **kwargs):
        for i, block in enumerate(real(*args, **kwargs)):
            events[i].set()
            yield block
        events[i + 1].set()

    def run(params, state, *rest):
        del params, rest
        i = len(ran)
        ran.append(i)
        assert events[i + 1].wait(SECONDS), "the next block waits for this one"
        return state

    monkeypatch.setattr(plan_arrays, "blocks", blocks)
    monkeypatch.setattr(packed, "program", lambda arch, cfg, mesh: run)
    jobs, keys = t.workload(1, 4), jax.random.split(jax.random.key(1), 4)
    trained = packed.train({}, jobs, keys, arch=t.ARCH, cfg=t.config(), eos=t.EOS)
    assert len(ran) > 2
    assert trained.adapter_steps == sum(job.total for job in jobs)
