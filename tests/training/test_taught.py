"""Lines that learn from teachers: the plan, the bank, and training against `adapt`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_frozen as frozen
import tiny_model
import trainings

from seal_jax.models import decoder, key_ranges, lora
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import config_rules
from seal_jax.training import (
    capacity,
    inner,
    packed,
    plan,
    plan_arrays,
    teacher,
    throughput,
)
from seal_jax.training.plan import Taught
from seal_jax.training.settings import PLAIN, EngineOptions, LossConfig

ARCH, EOS, WIDTH, PARAMS = frozen.ARCH, frozen.EOS, frozen.WIDTH, frozen.PARAMS

FORWARD = frozen.settings(teach="forward", bank=16)
# All that an inner loop can have.
WHOLE = dataclasses.replace(frozen.WHOLE, teach="jsd", beta=0.3, bank=16, resumes=True)


LONGEST = 48


def hidden(ids, delta=None):
    """Hidden states of one text, alone in its row, by one program for all lengths."""
    return _hidden(np.pad(ids, (0, LONGEST - len(ids))), delta)[: len(ids)]


@jax.jit
def _hidden(ids_T, delta):
    t = len(ids_T)
    ranges = key_ranges.causal(jnp.ones((1, t), bool))
    at = jnp.arange(t)[None]
    return decoder.hidden(PARAMS, delta, ARCH, ids_T[None], at, ranges)[0][0]


def line(rng, *, prompt: int, tail: int, more: int, skip=0, eos=True):
    """A line, how much of it is given, and its teacher, who has `more` before it."""
    ids = rng.integers(0, 46, prompt + tail).tolist()
    context = rng.integers(0, 46, more).tolist()
    count = tail + eos
    taught = Taught((*context, *ids), more + prompt, count, min(skip, count - 1))
    return tuple(ids), prompt, taught


def workload(count: int, **changes) -> list[plan.Job]:
    """Jobs of taught lines, partly taught lines, and lines without a teacher."""
    rng, jobs = np.random.default_rng(count), []
    for j in range(count):
        lines = [
            line(rng, prompt=1 + i, tail=2 + (i + j) % 3, more=3 + 11 * i, skip=j % 2)
            for i in range(1 + j % 3)
        ]
        lines.append(line(rng, prompt=2, tail=3, more=7, eos=False))
        texts, given, taught = zip(*lines, strict=True)
        if j == 1:
            taught = (None, *taught[1:])
        if j == 3:
            taught = ()
        own = dict(epochs=2 - j % 2, batch=1 + (j == 2), clip=(0.05, 1.0)[j % 2])
        jobs.append(
            plan.Job(
                texts,
                (count, j),
                learning_rate=1e-2,
                loss=frozen.MASKED,
                given=given,
                taught=taught,
                **(own | changes),
            )
        )
    return jobs


# Steps and lines of a step that the definition is compiled for.
STEPS, LINES = 8, 3


def solo(job, key, cfg, *, stack=None, teacher_on=None, start=None):
    """The definition, from hidden states that each teacher's text gives by itself."""
    laid = list(plan_arrays.rows(job, eos=EOS, multiple=WIDTH))
    for batch, rows in zip(job.batches(), laid, strict=True):
        for at, row in enumerate(rows):
            row = rows[at] = dict(row)
            if cfg.divergence:
                row.setdefault("anchors", np.zeros(WIDTH, np.float32))
            row.setdefault("distill", np.zeros(WIDTH, np.float32))
            row["teacher"] = np.zeros((WIDTH, ARCH.width), np.float32)
            i = batch[at] if at < len(batch) else None
            if i is None or not job.taught or job.taught[i] is None:
                continue
            one, own = job.taught[i], job.given[i] - 1
            states = hidden(one.ids, teacher_on)[one.given - 1 :]
            for t in range(one.skip, one.count):
                row["teacher"][own + t] = states[t]
        rows += [jax.tree.map(np.zeros_like, rows[0])] * (LINES - len(rows))
    laid += laid[:1] * (STEPS - len(laid))
    rows = jax.tree.map(lambda *x: np.stack(x), *(stacked(step) for step in laid))
    rates = np.pad(job.rates(), (0, STEPS - job.total))
    fresh = lora.init(key, ARCH, targets=cfg.targets, rank=cfg.rank)
    clip, total = jnp.float32(job.clip), jnp.int32(job.total)
    # One program for all waves, and for an engine that keeps slots or does not.
    start = inner.init_slot(fresh) if start is None else start
    cfg = dataclasses.replace(cfg, resumes=False)
    args = PARAMS, fresh, rows, rates, clip, total, ARCH, cfg, stack, start
    return frozen.ADAPT(*args)


def stacked(rows):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def train(jobs, cfg, **changes):
    keys = jax.random.split(jax.random.key(1), len(jobs))
    if cfg.frozen_rank:
        of = np.arange(len(jobs))[::-1] % 3
        changes = {"frozen": frozen.STACKS, "frozen_of": of} | changes
    run = functools.partial(packed.train, arch=ARCH, cfg=cfg, eos=EOS)
    return keys, run(PARAMS, jobs, keys, **changes)


def equal(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


# What a line learns from whom


def a_job(prompt=3, more=6, tail=4, skip=0, eos=True, **changes) -> plan.Job:
    """One line with a teacher, whose tail is 10, 11, ... in whatever context."""
    tokens = range(10, 10 + tail)
    taught = Taught(
        (*range(30, 30 + more), *range(prompt), *tokens),
        more + prompt,
        tail + eos,
        skip,
    )
    base = dict(
        lines=((*range(prompt), *tokens),),
        seed=(0,),
        epochs=1,
        learning_rate=1e-2,
        clip=1.0,
        loss=frozen.MASKED,
        given=(prompt,),
        taught=(taught,),
    )
    return plan.Job(**(base | changes))


def first_row(job, **kwargs):
    return next(plan_arrays.rows(job, eos=EOS, multiple=4, **kwargs))[0]


@pytest.mark.parametrize("prompt", [1, 3, 6])
@pytest.mark.parametrize("more", [0, 2, 9])
def test_tails_are_aligned_whatever_is_before_them(prompt, more):
    """The same token is next on both sides, up to end-of-text on both."""
    job = a_job(prompt, more)
    row, (shelves,) = first_row(job), teacher.shared([job], [[0]], FORWARD)[0]
    (reading,) = shelves.readings
    at = row["distill"].nonzero()[0]
    assert row["targets"][at].tolist() == [10, 11, 12, 13, EOS]
    assert not row["weights"].any()
    text = (*job.taught[0].ids, EOS)
    predicts = [
        text[reading.positions[row["teacher"][t] - reading.row] + 1] for t in at
    ]
    assert predicts == row["targets"][at].tolist()
    # A teacher sees no further than the position that is asked of it.
    assert reading.ids == text[:-1]


@pytest.mark.parametrize("skip", [0, 2])
@pytest.mark.parametrize("eos", [True, False])
def test_a_step_is_the_mean_over_targets_of_both_kinds(skip, eos):
    plain = (1, 2, 3, 4)
    both = dataclasses.replace(a_job(skip=skip, eos=eos), batch=2, epochs=2)
    both = dataclasses.replace(
        both, lines=(*both.lines, plain), given=(3, 2), taught=(*both.taught, None)
    )
    for index, step in enumerate(plan_arrays.rows(both, eos=EOS, multiple=4)):
        order = both.batches()[index]
        row, other = (step[order.index(i)] for i in (0, 1))
        targets = 5 - skip + 3
        each = np.float32(1) / np.float32(targets)
        own = slice(2 + skip, 2 + 4 + eos)
        want = np.zeros(len(row["distill"]), np.float32)
        want[own] = each
        np.testing.assert_array_equal(row["distill"], want)
        # End-of-text, if the teacher does not predict it, is learned as without one.
        assert row["weights"].nonzero()[0].tolist() == ([] if eos else [6])
        assert other["weights"].sum() == np.float32(3) * each
        assert not other["distill"].any() and not other["teacher"].any()
        total = sum(r["weights"].sum() + r["distill"].sum() for r in step)
        np.testing.assert_allclose(total, 1, rtol=1e-6)
        assert (row["distill"].dtype, row["teacher"].dtype) == ("float32", "int32")


def test_pads_behind_a_taught_line_stay_targets_of_cross_entropy():
    padded = LossConfig("padded", 64, -1)
    lines, taught = (*a_job().lines, (1,) * 12), (*a_job().taught, None)
    job = a_job(lines=lines, given=(3, 1), loss=padded, taught=taught, batch=2)
    (step,) = plan_arrays.rows(job, eos=EOS, multiple=4)
    row = step[job.batches()[0].index(0)]
    assert row["distill"].nonzero()[0].tolist() == [2, 3, 4, 5, 6]
    assert row["weights"].nonzero()[0].tolist() == [7, 8, 9, 10, 11]


def test_positions_that_carry_either_loss_are_counted():
    cfg = frozen.PLAIN.plan
    jobs = [a_job(), a_job(skip=3), dataclasses.replace(a_job(), taught=())]
    (block,) = plan_arrays.blocks(jobs, cfg, eos=EOS, shelved=[[1], [6], []])
    assert block.tokens == 3 * 7
    extras = block.extras
    assert extras.distill[: block.length].sum() == pytest.approx(2)
    where = extras.distill != 0
    assert sorted(extras.teacher[where].tolist()) == [1, 2, 3, 4, 5, 6, 7]
    assert not extras.teacher[~where].any()


LINE = a_job().lines[0]
BAD = [
    ({"taught": a_job().taught * 2}, "taught has 2 entries, there are 1"),
    ({"loss": LossConfig("reference", 64, 0), "given": ()}, "mode='reference' has"),
    ({"taught": (Taught(LINE, 0, 3),)}, r"has given=0, which must lie in 1\.\.7"),
    ({"taught": (Taught((*LINE[:-1], 9), 3, 3),)}, "and of its teacher differ: the 4"),
    # The same text with the seam elsewhere is another tail.
    ({"taught": (Taught(LINE, 2, 3),)}, "must be the same; encode prompt and tail"),
    ({"taught": (Taught(LINE, 3, 6),)}, r"count=6; they must be .* count <= 5"),
    ({"taught": (Taught(LINE, 3, 5),), "cut": (0,)}, r"count <= 4, the line's"),
    ({"taught": (Taught(LINE, 3, 2, 2),)}, "skip=2, count=2"),
    ({"taught": (Taught(LINE, 3, 2, -1),)}, "skip=-1, count=2"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_teachers_that_a_line_cannot_learn_from_are_refused(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        a_job(**changes)
    assert "\n" not in str(caught.value)


# The bank


def test_seeds_and_epochs_share_the_rows_of_a_teacher():
    jobs = [a_job(seed=(s,), epochs=1 + s) for s in range(3)] + [a_job(more=2)]
    shelves = teacher.shelve(jobs, FORWARD)
    assert shelves.of_jobs == [[1], [1], [1], [6]]
    assert [reading.row for reading in shelves.readings] == [1, 6]
    # On another stack it is another teacher; other targets of it are others too.
    on = teacher.shelve(jobs[:3], FORWARD, [0, 1, 0])
    assert on.of_jobs == [[1], [6], [1]]
    other = teacher.shelve([a_job(), a_job(skip=1)], FORWARD)
    assert other.of_jobs == [[1], [6]] and len(other.readings[1].positions) == 4


def test_more_targets_than_the_bank_holds_are_refused():
    small = dataclasses.replace(FORWARD, bank=2)
    jobs = [a_job(more=1), a_job(more=2)]
    with pytest.raises(
        ValueError, match=r"predict 10 .* holds 8; use inner\.teach\.tokens \(bank\)=3"
    ) as caught:
        train(jobs, small)
    assert "\n" not in str(caught.value)


@functools.cache
def filled(on_frozen: bool):
    """A bank of texts of several widths, its readings, and what was read."""
    cfg = dataclasses.replace(
        WHOLE, plan=dataclasses.replace(WHOLE.plan, chunk_tokens=0)
    )
    jobs = [a_job(more=more, tail=3) for more in (0, 1, 5, 11, 24, 17, 7, 3, 6)]
    of = [j % 3 for j in range(len(jobs))] if on_frozen else None
    shelves = teacher.shelve(jobs, cfg, of)
    bank, read = teacher.fill(
        *(PARAMS, [shelves]),
        arch=ARCH,
        cfg=cfg,
        eos=EOS,
        frozen=frozen.STACKS if on_frozen else None,
    )
    return bank, shelves.readings, read


@pytest.mark.parametrize("on_frozen", [False, True])
def test_the_bank_holds_what_each_teacher_predicts_read_alone(on_frozen):
    bank, readings, read = filled(on_frozen)
    assert bank.shape == (1 + WHOLE.bank * WHOLE.pool, ARCH.width)
    widths = {teacher.width(reading, WHOLE) for reading in readings}
    assert widths == {16, 32}
    for reading in readings:
        stack = None
        if on_frozen:
            stack = lora.select(frozen.STACKS, reading.frozen)
        alone = hidden(reading.ids, stack)[np.array(reading.positions)]
        rows = bank[reading.row : reading.row + len(reading.positions)]
        np.testing.assert_allclose(rows, alone, rtol=1e-4, atol=1e-4)
    assert not bank[0].any() and not bank[1 + 4 * len(readings) :].any()
    assert read == sum(len(reading.ids) for reading in readings)


# Training


def test_every_packed_adapter_equals_its_solo_run():
    cfg, jobs = FORWARD, workload(4)
    keys, trained = train(jobs, cfg)
    assert trained.finite_A.all()
    read = {one.ids[: one.positions.stop] for job in jobs for one in job.taught if one}
    assert trained.teacher_tokens == sum(map(len, read))
    for j, job in enumerate(jobs):
        alone = solo(job, keys[j], cfg)
        trainings.assert_alike(
            lora.select(trained.adapters, j), frozen.scaled(alone, cfg)
        )
        # The loss that is noted has both kinds of targets in it.
        np.testing.assert_allclose(
            trained.loss_A[j], alone.loss_sum / job.total, rtol=1e-4
        )


@functools.cache
def whole_run(on_frozen: bool):
    """Stacks, penalty, texts beside the lines, chunks, kept slots, and teachers."""
    jobs = [
        dataclasses.replace(job, beside=frozen_texts(j), beside_weight=3.0)
        for j, job in enumerate(workload(4))
    ]
    return jobs, *train(jobs, WHOLE, teacher_on_frozen=on_frozen)


def frozen_texts(j: int) -> tuple:
    return (tuple(range(j, j + 5)), (7, 8))


@pytest.mark.parametrize("on_frozen", [False, True])
def test_so_it_does_with_all_that_an_inner_loop_can_have(on_frozen):
    jobs, keys, trained = whole_run(on_frozen)
    for j, job in enumerate(jobs):
        stack = lora.select(frozen.STACKS, (3 - j) % 3)
        on = stack if on_frozen else None
        alone = solo(job, keys[j], WHOLE, stack=stack, teacher_on=on)
        trainings.assert_alike(
            lora.select(trained.adapters, j), frozen.scaled(alone, WHOLE)
        )
        np.testing.assert_allclose(
            trained.loss_A[j], alone.loss_sum / job.total, rtol=1e-4
        )
        trainings.assert_alike(lora.select(trained.slots.adapter, j), alone.adapter)
    # Which model teaches makes a difference.
    other = whole_run(not on_frozen)[2]
    assert trainings.gap(other.adapters, trained.adapters) > 1e-3


def test_where_in_the_bank_a_teacher_is_changes_nothing(monkeypatch):
    jobs = workload(4)
    _, want = train(jobs, FORWARD)

    def mirrored(jobs, cfg, frozen_of=None):
        readings, of_jobs = shelve(jobs, cfg, frozen_of)
        last = teacher.rows(cfg)
        moved = {r.row: last - r.row - len(r.positions) for r in readings} | {0: 0}
        return teacher.Shelves(
            [r._replace(row=moved[r.row]) for r in readings[::-1]],
            [[moved[row] for row in own] for own in of_jobs],
        )

    shelve = teacher.shelve
    monkeypatch.setattr(teacher, "shelve", mirrored)
    _, got = train(jobs, FORWARD)
    equal(got.adapters, want.adapters)
    equal(got.loss_A, want.loss_A)


def test_an_adapter_that_turns_nan_changes_no_bit_of_the_others():
    jobs = workload(4)
    poison = [dataclasses.replace(jobs[0], learning_rate=1e30, clip=1e30), *jobs[1:]]
    (_, want), (_, got) = train(jobs, FORWARD), train(poison, FORWARD)
    assert got.finite_A.tolist() == [False, True, True, True]
    rest = np.arange(1, 4)
    equal(lora.select(got.adapters, rest), lora.select(want.adapters, rest))
    equal(got.loss_A[rest], want.loss_A[rest])


@pytest.mark.parametrize("kind", ["forward", "reverse"])
def test_an_adapter_whose_teacher_is_itself_stays_where_it_began(kind):
    """Bit for bit: Adam would make a step of full size of whatever rounding leaves."""
    cfg = dataclasses.replace(FORWARD, teach=kind)
    rng = np.random.default_rng(0)
    lines = [line(rng, prompt=2, tail=t, more=0) for t in (3, 7, 5)]
    texts, given, taught = zip(*lines, strict=True)
    own = dataclasses.replace(
        workload(1)[0], lines=texts, given=given, taught=taught, epochs=2
    )
    keys, trained = train([own] * 2, cfg)
    fresh = [lora.init(key, ARCH, targets=cfg.targets, rank=cfg.rank) for key in keys]
    for a, adapter in enumerate(fresh):
        begun = lora.scaled(adapter, cfg.alpha / cfg.rank)
        equal(lora.select(trained.adapters, a), begun)
    assert not trained.loss_A.any()


def test_the_teacher_is_what_is_learned():
    """With more in view the base predicts another token; the adapter learns that."""
    job = a_job(tail=1, more=9, epochs=16, eos=False, learning_rate=0.05)
    _, trained = train([job], FORWARD)
    one = job.taught[0]

    def predicted(ids, delta=None):
        states = hidden(ids[:-1], delta)[-1]
        return jax.nn.softmax(decoder.logits(PARAMS, ARCH, states))

    want = predicted(one.ids)
    before, after = (
        float(jnp.abs(predicted(job.lines[0], delta) - want).sum())
        for delta in (None, lora.select(trained.adapters, 0))
    )
    assert after < 0.5 * before


# Sizes, shapes and refusals


def test_the_program_takes_a_bank_if_there_are_teachers_and_else_what_it_did():
    args = packed.arguments(ARCH, FORWARD)
    extras, stacks, bank = args[5:]
    assert stacks is None and extras.anchors is extras.folds is None
    assert (extras.teacher.dtype, extras.distill.dtype) == ("int32", "float32")
    assert bank.shape == (teacher.rows(FORWARD), ARCH.width)
    assert len(packed.arguments(ARCH, frozen.PLAIN)) == 5
    assert len(packed.arguments(ARCH, frozen.WHOLE)) == 7
    extras = packed.arguments(ARCH, frozen.WHOLE)[5]
    assert extras.teacher is extras.distill is None


def test_the_bank_is_a_part_of_the_memory():
    memory = capacity.measure(ARCH, FORWARD)
    assert memory.bank == 4 * ARCH.width * (1 + FORWARD.bank * FORWARD.pool)
    assert memory.other > 0 and "teachers' bank" in memory.line()
    assert "bank" not in memory._replace(bank=0).line()
    # A pool half as large has half of it; generation has none.
    half = capacity.counted(ARCH, dataclasses.replace(FORWARD, pool=2))
    assert half.bank - 4 * ARCH.width == (memory.bank - 4 * ARCH.width) / 2
    assert capacity.answering(memory, 1) == memory.base + memory.pool


def test_a_pool_is_as_small_as_its_bank_and_saved_slots_demand(monkeypatch):
    """Each finished adapter takes a row of results, of the bank, and its slot."""

    def measure(arch, cfg, mesh=None):
        pool = cfg.pool * 10, 0, 0, cfg.bank * cfg.pool, 30 * cfg.pool * cfg.resumes
        return capacity.Memory(100, cfg.plan.slots, *pool)

    monkeypatch.setattr(capacity, "measure", measure)
    monkeypatch.setattr(capacity, "base_bytes", lambda arch, mesh: 100)
    values = tiny_model.values("model")
    values["inner"] |= {"step_tokens": 96, "slots": 1, "active": 1, "pool": 0}
    wanted = config_rules.build(PassageRounds, values).inner
    options = EngineOptions(teach="jsd", bank=5, resumes=True)
    pick = functools.partial(capacity.choose, ARCH, wanted, adapters=9, limit=191)
    assert pick()[0].pool == 9
    cfg, memory = pick(options=options)
    # Two of 45 bytes each, where a third would be too much.
    assert (cfg.pool, memory.total) == (2, 191)


def test_a_program_for_two_arms_has_the_teacher_of_the_one_that_has_any():
    teaches = EngineOptions(teach="jsd", beta=0.1, bank=4)
    other = EngineOptions(frozen_rank=2, frozen_rows=3, resumes=True)
    for both in (teaches.joined(other), other.joined(teaches)):
        assert both == EngineOptions(2, 3, teach="jsd", beta=0.1, bank=4, resumes=True)
    more = dataclasses.replace(teaches, bank=9)
    assert teaches.joined(more) == more
    assert PLAIN.joined(PLAIN) == PLAIN
    with pytest.raises(ValueError, match=r"teach='jsd', beta=0\.1 and teach='forward'"):
        teaches.joined(EngineOptions(teach="forward", bank=4))


WRONG = [
    ({"teach": "backward", "bank": 3}, r"teach='backward' must be one of"),
    ({"teach": "jsd"}, r"teach='jsd' and bank=0 must both be set"),
    ({"bank": 3}, r"teach='' and bank=3 must both"),
    ({"teach": "jsd", "bank": 3, "beta": 1.0}, r"beta=1\.0 must lie between 0 and 1"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_settings_that_make_no_teacher_are_refused(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        frozen.settings(**changes)
    assert "\n" not in str(caught.value)


def test_teachers_that_nobody_listens_to_are_refused():
    with pytest.raises(ValueError, match="need an inner loop with teach") as caught:
        next(plan_arrays.blocks([a_job()], frozen.PLAIN.plan, eos=EOS))
    assert "\n" not in str(caught.value)


def test_the_flops_of_a_token_count_the_teacher_s_logits():
    flops = functools.partial(throughput.flops_per_token, ARCH)
    assert flops(FORWARD) == flops(frozen.PLAIN) + 2 * ARCH.width * ARCH.vocab
