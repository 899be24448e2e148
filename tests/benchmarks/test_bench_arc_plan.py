"""The few-shot round before it runs: its adapters, its plan and its floor."""

import math

import arc_bench
import pytest

from seal_jax.tasks.arc import self_edit as arc_edit
from seal_jax.training import plan
from seal_jax.training.settings import LossConfig, PlanConfig


@pytest.fixture(scope="module")
def bench(root):
    with arc_bench.modules(root) as found:
        yield found


@pytest.fixture(scope="module")
def committed(bench):
    return bench.arc_workload.load()


# The work


def test_the_shape_has_the_size_its_name_says(bench):
    from seal_jax.models import hf_config

    shape = bench.common.SHAPES["llama-3.2-1b"]
    # The model's page says 1.23 billion; norms are left out.
    assert shape.tied
    assert shape.matmul_parameters() / 1e9 == pytest.approx(1.236, abs=0.001)
    arch = hf_config.parse(shape.config(), dtype="bfloat16")
    assert (arch.family, arch.tied, arch.linears()) == ("llama", True, shape.linears())
    five = ("q_proj", "v_proj", "gate_proj", "up_proj", "down_proj")
    assert shape.lora_parameters(rank=128, targets=five) == 76_546_048
    assert shape.lora_parameters(rank=16, targets=five) == 9_568_256
    with pytest.raises(ValueError, match="FIELD=NUMBER with one of vocab"):
        bench.common.shape("tiny,family=1")


def test_settings_are_those_of_the_papers_config(bench):
    exp = bench.arc_task.settings({})
    assert (exp.scale.tasks, exp.scale.edits) == (11, 15)
    assert (exp.scale.heldout_tasks, exp.scale.heldout_edits) == (8, 5)
    assert (exp.inner.lora.rank, exp.edit.max_steps, exp.edit.batch) == (128, 375, 2)
    assert (exp.imitate.epochs, exp.imitate.batch) == (8, 5)
    assert bench.arc_task.settings({"data.most": 9}).data.most == 9
    with pytest.raises(ValueError, match=r"config\.data\.least: no such key"):
        bench.arc_task.settings({"data.least": 9})


def test_a_round_is_cut_to_what_is_asked(bench):
    exp = arc_bench.settings(bench, **{"data.most": 2, "answer.max_tokens": 6})
    tasks = bench.arc_task.lengths(arc_bench.made_up(bench), exp)
    # Of three lines and of eight; the short ones come first.
    assert tasks.train[0].datasets["0000"] == ((20, 5), (60, 9))
    assert tasks.heldout[0].datasets["0110"] == ((60, 9), (60, 9))
    assert tasks.train[0].views == ((30, 5), (30, 5), (50, 6))
    scaled = bench.arc_task.lengths(arc_bench.made_up(bench), exp, scale=0.1).train[0]
    assert scaled.propose_prompt == 4
    assert scaled.datasets["0000"] == ((2, 1), (6, 1))
    assert scaled.views == ((3, 1), (3, 1), (5, 1))


@pytest.mark.parametrize(
    "changes, scale, rule",
    [
        ({"scale.tasks": 2}, 1.0, "--tasks=2 must be at most 1"),
        ({"scale.heldout_tasks": 2}, 1.0, "--heldout-tasks=2 must be at most 1"),
        ({}, 0.0, r"--scale-lengths=0.0 must lie in \(0, 1\]"),
    ],
)
def test_more_than_there_is_is_refused(bench, changes, scale, rule):
    with pytest.raises(ValueError, match=rule):
        bench.arc_task.lengths(
            arc_bench.made_up(bench), arc_bench.settings(bench, **changes), scale=scale
        )


def test_configurations_are_valid_within_budget_and_decided_by_the_seed(bench):
    exp = bench.arc_task.settings({"scale.edits": 40})
    tasks = bench.arc_task.lengths(bench.arc_workload.load(), exp)

    def drawn(seed):
        return bench.arc_task.make(
            exp, tasks, configuration="random", vocab=50, seed=seed
        )

    one = drawn(0)
    for part, count in ((one.train, 40), (one.heldout, 5)):
        for task, own in zip(part.tasks, part.edits, strict=True):
            assert len(own) == count
            for edit in own:
                assert arc_edit.parse(edit.json(), exp.edit) == edit
                lines = task.datasets[bench.arc_workload.key(edit.switches)]
                assert not arc_edit.over_budget(edit, len(lines), exp.edit)
    assert len({edit.switches for own in one.train.edits for edit in own}) == 16
    assert drawn(0).train.edits == one.train.edits
    assert drawn(1).train.edits != one.train.edits
    # 70 to 90 tokens as they are written.
    assert all(70 <= n <= 90 for own in one.train.texts for n in own)


def test_the_oracles_configuration_is_the_settings(bench):
    whole = arc_bench.make(bench, configuration="oracle")
    want = arc_edit.parse(whole.exp.task.oracle, whole.exp.edit)
    assert set(whole.train.edits[0]) == {want}
    job = whole.train.job(whole.train.trials[0], first_step_only=False)
    assert (job.epochs, job.total, job.batch, job.warmup) == (2, 4, 2, 11)
    assert sorted(map(len, job.lines)) == [25, 25, 69]
    assert sorted(job.given) == [20, 20, 60]


def test_jobs_are_what_their_configurations_ask_for(bench):
    part = arc_bench.make(bench).heldout
    totals = [job.total for job in part.jobs()]
    assert totals == sorted(totals, reverse=True)
    for trial, job in zip(part.trials, part.jobs(), strict=True):
        edit = part.edits[trial.task][trial.edit]
        assert (job.epochs, len(job.lines)) == (edit.epochs, 8)
        assert job.given == ((20, 20, *[60] * 6) if edit.output_only else ())
        assert (job.loss.mode, job.schedule, job.clip) == ("masked", "cosine", 1.0)
        assert part.job(trial, first_step_only=True).total == 1
        # What has the same switches trains on the same lines, in an order of its own.
        same, _ = part.dataset(trial.task, bench.arc_workload.key(edit.switches))
        assert job.lines is same
    assert part.jobs()[0].seed != part.jobs()[1].seed


def test_every_adapter_is_asked_every_view(bench):
    part = arc_bench.make(bench).train
    requests = part.requests(part.trials[:2])
    assert [(r.adapter, len(r.prompt), n) for r, n in requests] == [
        (a, *one) for a in (0, 1) for one in ((30, 5), (30, 5), (50, 7))
    ]
    assert len({request for request, _ in requests}) == 6


def test_half_of_the_edits_are_kept_by_made_up_rewards(bench, committed):
    exp = bench.arc_task.settings({})
    whole = bench.arc_task.make(
        exp,
        bench.arc_task.lengths(committed, exp),
        configuration="oracle",
        vocab=50,
        seed=0,
    )
    kept = bench.arc_phases.choose(whole.train)
    assert len(set(kept)) == len(kept)
    assert 0.4 < len(kept) / 165 < 0.6
    rewards = bench.arc_task.rewards(whole.train)
    assert all(rewards[task][edit] == 1.0 for task, edit in kept)


# The plan and the floor


def job(*sizes, given=(), epochs=1, batch=2):
    return plan.Job(
        tuple(tuple(range(1, n + 1)) for n in sizes),
        (0,),
        epochs=epochs,
        learning_rate=1e-4,
        clip=1.0,
        loss=LossConfig("masked", 2, 0),
        batch=batch,
        given=given,
    )


def test_work_is_the_sum_over_jobs(bench):
    jobs = [job(10, 4, 6, epochs=3), job(8, 20, given=(5, 20), epochs=2)]
    # Without any given a line has as many targets as tokens: not the first, but the
    # turn's end. With 5 of 8 given it has 4, with 20 of 20 one.
    assert bench.arc_plan.work(jobs) == (
        2,
        3 * 2 + 2,
        3 * 20 + 2 * 28,
        3 * 20 + 2 * (4 + 1),
        3 * 30 + 2 * 40,
    )


def test_a_plan_is_counted_by_its_steps(bench):
    # Lines of two tiles and of one, in steps of two rows of two tiles.
    cfg = PlanConfig(tile=4, row_tokens=8, step_tokens=16, slots=2, active=2)
    jobs = [job(8, 8, epochs=2), job(4, 3)]
    got = bench.arc_plan.planned(jobs, cfg, pool=2)
    # The first job fills a step of its own, twice; the other's lines take half of one.
    assert (got["global_steps"], got["computed_tokens"]) == (3, 48)
    assert got["token_efficiency"] == (2 * 16 + 7) / 48
    assert got["adapters_per_step"] == 1.0
    pairs = 2 * 2 * (8 * 9 // 2) + 4 * 5 // 2 + 3 * 4 // 2
    # A row shorter than a block attends to all of itself; one without lines does not.
    assert got["attention_efficiency"] == pairs / (5 * 8 * 8)
    apart = bench.arc_plan.planned(jobs, cfg, pool=1)
    assert apart["global_steps"] == 3


def test_attention_is_counted_by_blocks_of_queries_and_keys(bench):
    b = bench.arc_plan.BLOCK
    row = 2 * b + b // 2
    cfg = PlanConfig(row, row, row, 1, 1)
    got = bench.arc_plan.planned([job(row, batch=1)], cfg, pool=1)
    assert got["attention_efficiency"] == row * (row + 1) // 2 / (6 * b**2)
    # A second line from the middle of a block on sees nothing of the first's beginning.
    lines = [(0, b + 3, b + 3), (b + 3, b, b), (row + 5, 4, 9)]
    # Of the first row: one block; two; of the last, the second and the third. And one.
    assert bench.arc_plan.scores(lines, row) == (1 + 2 + 2 + 1) * b**2


def test_the_floor_equals_operations_counted_product_by_product(bench):
    shape = bench.common.SHAPES["tiny"]
    whole = arc_bench.make(
        bench,
        configuration="oracle",
        **{"inner.lora.rank": 4, "imitate.lora.rank": 2},
    )
    # One operation a second, and memory for nothing.
    machine = bench.floor.Machine(1.0, math.inf)
    got = bench.arc_plan.least(shape, whole, machine)
    assert tuple(got) == bench.arc_phases.PHASES
    head = 2 * shape.width * shape.vocab
    body = sum(2 * d * f for d, f in shape.linears().values()) * shape.layers
    sizes = [shape.linears()[name] for name in whole.exp.inner.lora.targets]
    adapter = 2 * 4 * sum(map(sum, sizes)) * shape.layers
    text = whole.train.texts[0][0]
    # Two epochs of three lines, on the tokens of the answers and the turns' ends alone.
    tokens, targets = 4 * 2 * (25 + 25 + 69), 4 * 2 * (6 + 6 + 10)
    assert got["adapt"] == tokens * (2 * body + 3 * adapter) + targets * 2 * head
    # Every adapter reads its views; the head for a prompt's last token alone.
    reading = 4 * (110 * (body + adapter) + 3 * head)
    writing = 4 * (5 + 5 + 7) * (body + adapter + head)
    assert got["evaluate"] == reading + writing
    # The floor reads a prompt once for all its edits.
    assert got["propose"] == 40 * body + head + 4 * text * (body + head)
    kept = len(bench.arc_phases.choose(whole.train))
    own = adapter // 2
    positions, completions = kept * (40 + text), kept * (text + 1)
    assert got["imitate"] == 8 * (
        positions * (2 * body + 3 * own) + completions * 2 * head
    )
    assert got["select"] == 0.0
    assert got["heldout_adapt"] == 2 * 2 * (
        (2 * 25 + 6 * 69) * (2 * body + 3 * adapter) + (2 * 6 + 6 * 10) * 2 * head
    )
