"""Training that goes on from saved slots: the schedule, the engine, the definition."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import test_frozen as frozen
import test_taught as taught
import trainings

from seal_jax.models import lora
from seal_jax.training import capacity, packed, plan, plan_arrays
from seal_jax.training.settings import LossConfig

CFG = frozen.settings(teach="reverse", bank=16, resumes=True)
train = taught.train


def job(**changes) -> plan.Job:
    base = dict(
        lines=((1, 2, 3), (4, 5), (6, 7, 8, 9), (1,), (2, 2)),
        seed=(3, 1),
        epochs=4,
        learning_rate=1e-2,
        clip=1.0,
        loss=LossConfig("padded", 64, 2),
        batch=2,
        warmup=3,
        schedule="cosine",
    )
    return plan.Job(**(base | changes))


TEXTS = {"beside": ((7, 8), (9,), (5, 5, 5)), "beside_weight": 1.0}


@pytest.mark.parametrize(
    "changes",
    [{}, TEXTS | {"loss": frozen.MASKED}, {"loss": LossConfig("padded", 64, -1)}],
    ids=["sampled", "beside", "exact"],
)
def test_spans_are_pieces_of_the_whole_schedule(changes):
    whole = job(**changes)
    pieces = [
        dataclasses.replace(whole, span=span) for span in ((0, 1), (1, 3), (3, 4))
    ]
    assert [piece.total for piece in pieces] == [3, 6, 3]
    for name in ("batches", "order", "beside_order", "rates"):
        joined = [x for piece in pieces for x in getattr(piece, name)()]
        assert joined == list(getattr(whole, name)()), name
    laid = functools.partial(plan_arrays.rows, eos=46, multiple=4)
    joined = [step for piece in pieces for step in laid(piece)]
    for ours, theirs in zip(joined, laid(whole), strict=True):
        taught.equal(ours, theirs)
    # What is shared out is what is trained.
    assert plan.share([pieces[0], pieces[1], pieces[2]], 2, most=3) == [[1], [0, 2]]


@pytest.mark.parametrize("span", [(0, 0), (2, 1), (-1, 2), (0, 5)])
def test_spans_that_are_none_are_refused(span):
    with pytest.raises(ValueError, match=r"span=.* within 0\.\.4") as caught:
        job(span=span)
    assert "\n" not in str(caught.value)


@functools.cache
def one_run():
    return train(taught.workload(4, epochs=3), CFG)[1]


def waves(jobs, spans, cfg=CFG, **changes):
    """What each wave leaves; the same lines in all."""
    kept = []
    for span in spans:
        now = [dataclasses.replace(job, span=span) for job in jobs]
        start = kept[-1].slots if kept else None
        kept.append(train(now, cfg, start=start, **changes)[1])
    return kept


def test_two_waves_from_saved_slots_are_one_run_bit_for_bit():
    first, last = waves(taught.workload(4, epochs=3), [(0, 1), (1, 3)])
    whole = one_run()
    taught.equal(last.adapters, whole.adapters)
    taught.equal(last.slots, whole.slots)
    taught.equal(last.loss_A, whole.loss_A)
    assert first.adapter_steps + last.adapter_steps == whole.adapter_steps
    assert trainings.gap(first.adapters, whole.adapters) > 1e-3


def test_two_waves_by_slot_are_one_run():
    """Moments that a slot was left with are those that it goes on with."""
    plan = dataclasses.replace(CFG.plan, active=CFG.plan.slots, by_slot=True)
    cfg = dataclasses.replace(CFG, plan=plan)
    jobs = taught.workload(4, epochs=3)
    _, last = waves(jobs, [(0, 1), (1, 3)], cfg)
    (whole,) = waves(jobs, [(0, 3)], cfg)
    trainings.assert_stacks_alike(last.adapters, whole.adapters)
    trainings.assert_stacks_alike(last.slots.adam.nu, whole.slots.adam.nu)
    trainings.assert_stacks_alike(whole.adapters, one_run().adapters)


def test_one_wave_is_training_without_waves():
    (only,) = waves(taught.workload(4, epochs=3), [(0, 3)])
    taught.equal(only.adapters, one_run().adapters)
    plain = dataclasses.replace(CFG, resumes=False)
    _, without = train(taught.workload(4, epochs=3), plain)
    taught.equal(without.adapters, only.adapters)
    assert without.slots is None


def test_a_wave_of_other_lines_goes_on_as_the_definition_does():
    first = [
        dataclasses.replace(job, span=(0, 1)) for job in taught.workload(3, epochs=2)
    ]
    keys, begun = train(first, CFG)
    before = jax.tree.map(np.array, begun.slots)
    # Other tails, so other teachers and other lengths.
    other = [
        dataclasses.replace(
            job, span=(1, 2), lines=new.lines, taught=new.taught, given=new.given
        )
        for job, new in zip(first, reversed(first), strict=True)
    ]
    _, ended = train(other, CFG, start=begun.slots)
    for j, (own, new) in enumerate(zip(first, other, strict=True)):
        slot = taught.solo(own, keys[j], CFG)
        slot = taught.solo(new, keys[j], CFG, start=slot)
        trainings.assert_alike(lora.select(ended.adapters, j), frozen.scaled(slot, CFG))
        np.testing.assert_allclose(
            ended.loss_A[j], slot.loss_sum / slot.adam.count, rtol=1e-4
        )
    # Slots are only read; whoever gives them away says so.
    taught.equal(begun.slots, before)
    _, again = train(other, CFG, start=begun.slots, consume=True)
    taught.equal(again.adapters, ended.adapters)


BAD = [
    ({"cfg": dataclasses.replace(CFG, resumes=False)}, "resumes=False keeps none"),
    ({"start": None}, r"span=\(1, 2\) of a job is not its beginning; give start"),
    ({"cfg": dataclasses.replace(CFG, rank=3)}, "slots of rank 3"),
    ({"rows": 1}, "start has 1 slots for 2 jobs"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_slots_that_nobody_can_go_on_from_are_refused(changes, message):
    jobs = [dataclasses.replace(j, span=(1, 2)) for j in taught.workload(2, epochs=2)]
    start = packed.init_state(frozen.ARCH, CFG)[1].slots
    if "rows" in changes:
        start = jax.tree.map(lambda x: x[:1], start)
    with pytest.raises(ValueError, match=message) as caught:
        train(jobs, changes.get("cfg", CFG), start=changes.get("start", start))
    assert "\n" not in str(caught.value)


def test_saved_slots_are_a_part_of_the_memory():
    memory = capacity.measure(frozen.ARCH, CFG)
    saved = packed.init_state(frozen.ARCH, CFG)[1].slots
    assert memory.saved == sum(x.nbytes for x in jax.tree.leaves(saved)) > memory.pool
    assert "saved slots" in memory.line() and "teachers' bank" in memory.line()
    assert capacity.answering(memory, 1) == memory.base + memory.pool + memory.saved
    # They are written where they lie.
    without = capacity.measure(frozen.ARCH, dataclasses.replace(CFG, resumes=False))
    assert without.saved == 0
    assert memory.other - without.other < memory.saved
