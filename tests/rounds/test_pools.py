"""Pools of jobs: how they are cut, what a store saves, what a kill costs."""

import types
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seal_jax.rounds import pools
from seal_jax.runtime import prng, progress
from seal_jax.runtime.journal import Journal
from seal_jax.training import packed, plan

LEARNER = types.SimpleNamespace(params={}, arch=None, eos=0)
CFG = types.SimpleNamespace(pool=2, bank=0)
KEY = jax.random.key(3)
LOSS = plan.LossConfig("masked", 2, 0)


def job(total):
    return plan.Job(
        ((1, 2),) * total, (0,), epochs=1, learning_rate=0.1, clip=1.0, loss=LOSS
    )


def work(count):
    return pools.Work(
        [job(i + 1) for i in range(count)], [(7, i) for i in range(count)]
    )


@pytest.fixture
def calls(monkeypatch):
    """Calls of the training, which is a stand-in; a pool has a row to spare."""
    calls = []

    def train(params, jobs, keys_A, **kwargs):
        calls.append((jobs, keys_A, kwargs))
        totals = np.array([job.total for job in jobs] + [0])
        tree = {"x": jnp.asarray(totals)}
        return packed.TrainedAdapters(tree, totals * 1.0, totals > 0, 10, 20, 5, 5)

    monkeypatch.setattr(packed, "train", train)
    monkeypatch.setattr(pools.throughput, "throughput", lambda *a, **k: {"mfu": 1.0})
    monkeypatch.setattr(pools.throughput, "line", lambda rates: "MFU 100%")
    return calls


def train(work, store, said=None, **kwargs):
    return pools.train(
        LEARNER,  # pyright: ignore[reportArgumentType]
        work,
        store,
        key=KEY,
        cfg=CFG,  # pyright: ignore[reportArgumentType]
        mesh=None,
        phase="p",
        say=(said if said is not None else []).append,
        **kwargs,
    )


def test_jobs_are_cut_in_their_order_and_draw_with_their_own_keys(calls, capsys):
    logged, whole = [], progress.Whole(20, "adapters", done=5)
    held = train(work(5), pools.Held(), log=logged.append, whole=whole)
    assert [list(pool.rows) for pool in held] == [[0, 1], [2, 3], [4]]
    assert [[j.total for j in jobs] for jobs, _, _ in calls] == [[1, 2], [3, 4], [5]]
    # However jobs are pooled, a key is that of its own integers alone.
    alone = [prng.fold(KEY, [7], [i])[0] for i in range(5)]
    drawn = [key for _, keys_A, _ in calls for key in keys_A]
    assert all(a == b for a, b in zip(alone, drawn, strict=True))
    # No rows to spare.
    assert [pool.adapters["x"].tolist() for pool in held] == [[1, 2], [3, 4], [5]]
    shown = capsys.readouterr().err
    assert shown.startswith("p: adapt: 5/5 adapters, ") and "; MFU 100%; run: " in shown
    assert whole.done == 10 and "run: 10 of about 20 adapters, about " in shown
    assert logged == [{"mfu": 1.0}] * 3


def test_frozen_stacks_go_to_the_jobs_they_belong_to(calls):
    plain = work(3)
    on_stacks = pools.Work(plain.jobs, plain.folds, {"stack": 1}, [4, 5, 6])
    train(on_stacks, pools.Held())
    assert [kwargs["frozen_of"] for _, _, kwargs in calls] == [[4, 5], [6]]
    assert all(kwargs["frozen"] == {"stack": 1} for _, _, kwargs in calls)


def test_a_killed_run_trains_the_pools_that_are_missing(calls, tmp_path):
    def finish(pool):
        if 4 in pool.rows and len(calls) < 4:
            raise KeyboardInterrupt
        return {"rows": list(pool.rows), **pool.cost()}

    def stored(journal):
        return pools.Journaled(journal, "r/adapt", finish)

    with Journal(tmp_path / "j") as journal, pytest.raises(KeyboardInterrupt):
        train(work(5), stored(journal))
    with Journal(tmp_path / "j") as journal:
        assert journal.keys() == ["r/adapt/0", "r/adapt/1"]
        whole = progress.Whole(5, "adapters", done=4)
        units = train(work(5), stored(journal), whole=whole)
    cost = {"tokens": 10, "computed": 20, "steps": 5}
    assert units == [{"rows": rows, **cost} for rows in ([0, 1], [2, 3], [4])]
    assert len(calls) == 4 and whole.done == 5


def test_what_is_all_in_the_store_shows_nothing(calls, capsys):
    held = pools.Held()
    train(work(3), held)
    capsys.readouterr()
    whole = progress.Whole(3, "adapters", done=3)
    assert len(train(work(3), held, whole=whole)) == 2
    assert capsys.readouterr().err == "" and whole.done == 3


def test_no_jobs_are_no_pools(calls):
    assert train(work(0), pools.Held()) == [] and not calls


def test_the_longest_come_first_and_equal_ones_stay_in_order():
    assert pools.longest_first([2, 5, 2, 5, 9]) == [4, 1, 3, 0, 2]


def test_a_pool_gives_way_to_the_next(calls, monkeypatch):
    """Memory is planned for one pool: its adapters are gone when the next trains."""
    adapters, units = [], {}
    stand_in = packed.train

    def checked(*args, **kwargs):
        assert [old for old in adapters if old() is not None] == []
        trained = stand_in(*args, **kwargs)
        adapters.append(weakref.ref(trained.adapters["x"]))
        return trained

    class Store:
        def __contains__(self, i):
            return i in units

        def put(self, i, pool):
            units[i] = len(pool.rows)

        def get(self, i, rows):
            return units[i]

    monkeypatch.setattr(packed, "train", checked)
    size = CFG.pool
    assert train(work(3 * size), Store()) == [size, size, size]
    assert len(adapters) == 3


# Waves


def in_waves(monkeypatch, count, *, resumes=True):
    """Two pools of three jobs in waves; what the hook and the training were given."""
    seen, given, slots = [], [], []

    def jobs(wave, rows, adapters):
        assert not [old for old in slots[:-1] if old() is not None]
        seen.append((wave, list(rows), adapters and adapters["x"].tolist()))
        return [job(1 + i + 10 * wave) for i in rows]

    def trained(params, jobs, keys_A, *, start, consume, **kwargs):
        given.append((len(jobs), start and start["n"].tolist(), consume))
        totals = np.array([job.total for job in jobs])
        made: Any = {"x": jnp.asarray(totals)}, {"n": jnp.asarray(totals * 100)}
        slots.append(weakref.ref(made[1]["n"]))
        finite = np.ones(len(jobs), bool)
        return packed.TrainedAdapters(
            made[0], totals * 1.0, finite, 10, 20, 5, 4, 3, made[1]
        )

    monkeypatch.setattr(packed, "train", trained)
    monkeypatch.setattr(CFG, "resumes", resumes, raising=False)
    held = train(
        pools.Work(work(3).jobs, work(3).folds, waves=pools.Waves(count, jobs)),
        pools.Held(),
    )
    return held, seen, given


def test_each_pool_trains_wave_by_wave_from_its_own_slots(calls, monkeypatch):
    held, seen, given = in_waves(monkeypatch, 3)
    rows = [0, 1], [2]
    left = [None, [1, 2], [11, 12]], [None, [3], [13]]
    assert seen == [
        (wave, rows[pool], left[pool][wave]) for pool in (0, 1) for wave in range(3)
    ]
    assert [at for _, at, _ in given[:3]] == [None, [100, 200], [1100, 1200]]
    assert all(consume for _, _, consume in given)
    # The last wave's adapters, at the costs of all; nothing goes on from them.
    assert [pool.adapters["x"].tolist() for pool in held] == [[21, 22], [23]]
    cost = {"tokens": 30, "computed": 60, "steps": 15, "teacher_tokens": 9}
    assert [pool.cost() for pool in held] == [cost, cost]
    assert [pool.trained.adapter_steps for pool in held] == [12, 12]
    assert all(pool.trained.slots is None for pool in held)


def test_one_wave_needs_no_slots_and_several_do(calls, monkeypatch):
    held, seen, _ = in_waves(monkeypatch, 1, resumes=False)
    assert len(held) == 2 and [wave for wave, *_ in seen] == [0, 0]
    with pytest.raises(ValueError, match=r"waves=2 must be .* resumes=True") as caught:
        in_waves(monkeypatch, 2, resumes=False)
    assert "\n" not in str(caught.value)
