"""The benchmark of the few-shot round: lengths, work, plan, floor, and that it runs."""

import importlib
import json
import math

import numpy as np
import pytest

from seal_jax import generate, packed, plan
from seal_jax.tasks import arc_edit

MODULES = (
    "common",
    "floor",
    "round_phases",
    "arc_workload",
    "arc_task",
    "arc_phases",
    "arc_plan",
    "arc_round",
)

# The smallest decoder that takes adapters of rank 16.
SHAPE = "tiny,width=64,heads=2,kv_heads=2,head_dim=32,layers=1"


@pytest.fixture(scope="module")
def bench(root):
    """The benchmark's modules, which find each other as they do when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        modules = {name: importlib.import_module(name) for name in MODULES}
        yield type("Bench", (), modules)


@pytest.fixture(scope="module")
def committed(bench):
    return bench.arc_workload.load()


# The committed lengths


# By the reference's own functions, its tokens counted in the same way: demonstrations;
# prompt for a self-edit; queries of all tests; longest query; longest answer with its
# end; lines kept with all switches, and with none.
REFERENCE = """
44f52bb0 6  388 46  228   4 250 69
4be741c5 3 1048 10 1177  10 250 10
5582e5ca 3  364 10  186  22 250 10
5614dbcf 2  612  7  442  22 192  4
5bd6f4ac 4  980 16  830  22 250 23
6150a2bd 2  324  7  142  22 192  4
67e8384a 4  620 16  401  79 250 23
6d0aefbc 4  476 16  293  40 250 23
6e02f1e3 5  444 20  274  22 250 47
8be77c9e 3  418 10  228  43 250 10
8d5021e8 3  508 10  288  82 250 10
59341089 4  620 16  419  76 250 23
66e6c45b 2  380  7  187  37 192  4
68b67ca3 3  526 10  357  22 250 10
903d1b4a 4 4356 16 3779 529 250 23
b1fc8b8e 5  874 40  695  56 250 47
bc4146bd 4 1028 16  767 165 250 23
c7d4e6ad 2 1052  7  709 211 192  4
ce8d95cc 4 1444 16 1396 134 250 23
"""
# Our words are others, and a # is counted with the brackets before it.
PROPOSE_WORDS, QUERY_WORDS = 10, -14


def test_lengths_are_those_of_the_reference(bench, committed):
    tasks = {task.id: task for task in (*committed.train, *committed.heldout)}
    rows = [line.split() for line in REFERENCE.split("\n") if line]
    assert [name for name, *_ in rows] == list(tasks)
    for name, *numbers in rows:
        demos, propose, views, query, answer, full, plain = map(int, numbers)
        task = tasks[name]
        assert task.propose_prompt == propose + PROPOSE_WORDS, name
        assert len(task.views) == views, name
        longest = max(prompt for prompt, _ in task.views)
        assert longest == query + QUERY_WORDS - (demos - 1), name
        # Turned answers may be longer: a row costs one token more than a column.
        assert max(tokens for _, tokens in task.views) >= answer - 1, name
        assert min(tokens for _, tokens in task.views) <= answer - 1, name
        # One recoloured copy may be what it is a copy of.
        assert len(task.datasets["1111"]) in (full, full - 1), name
        assert len(task.datasets["0000"]) == plain, name


def test_the_file_holds_lengths_and_ids_only(bench):
    text = bench.arc_workload.FILE.read_text(encoding="utf-8")
    assert len(text) < 300_000
    found = json.loads(text)
    for task in (*found["train"], *found["heldout"]):
        assert set(task) == {"id", "propose_prompt", "views", "datasets"}
        assert tuple(task["datasets"]) == bench.arc_workload.KEYS
        for rows in (task["views"], *task["datasets"].values()):
            assert all(len(row) == 3 and min(row) >= 1 for row in rows)
            assert {type(n) for row in rows for n in row} == {int}


@pytest.mark.slow
def test_it_is_what_the_generator_makes(bench, seal_data):
    made = bench.arc_workload.to_text(bench.arc_workload.measure(seal_data))
    assert bench.arc_workload.FILE.read_text(encoding="utf-8") == made


def test_a_task_is_measured_as_the_file_has_it(bench, seal_data, monkeypatch):
    from seal_jax import few_shot

    whole = few_shot.load

    def smallest(exp):
        (train,), heldout = whole(exp)
        return [[one for one in train if one.id == "6150a2bd"]], heldout[1:2]

    monkeypatch.setattr(few_shot, "load", smallest)
    made = bench.arc_workload.measure(seal_data)
    found = json.loads(bench.arc_workload.FILE.read_text(encoding="utf-8"))
    for name, (row,) in made.items():
        assert row in found[name]


def test_the_sums_of_the_file(bench, committed):
    what = bench.arc_workload.describe(committed)
    train, heldout = what["train"], what["heldout"]
    assert (train["tasks"], heldout["tasks"]) == (11, 8)
    assert (train["views"], heldout["views"]) == (168, 128)
    assert (train["lines"], train["line_tokens_max"]) == (2634, 3042)
    assert (heldout["lines"], heldout["line_tokens_max"]) == (1883, 4938)
    # Filled up to each dataset's longest, as the reference trains them.
    assert 1.7 < train["padded_line_tokens"] / train["line_tokens"] < 2.0


@pytest.mark.parametrize(
    "text, tokens",
    [
        ("", 0),
        ("[[0 3]\n [7 6]]#", 10),
        ("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n", 5),
        ('{"learning_rate": 0.0001}', 10),
        ("train_using_all_tokens", 4),
    ],
)
def test_the_estimate(bench, text, tokens):
    assert bench.arc_workload.count(text) == tokens


def test_the_command_says_what_there_is_or_what_is_missing(bench, tmp_path, capsys):
    assert bench.arc_workload.main([]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["train"]["tasks"], err) == (11, "")
    before = bench.arc_workload.FILE.read_bytes()
    assert bench.arc_workload.main([f"--write={tmp_path}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and "few-shot/data" in err
    assert bench.arc_workload.FILE.read_bytes() == before


def test_the_shape_has_the_size_its_name_says(bench):
    from seal_jax import hf_config

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


# The work


@pytest.fixture(scope="module")
def made_up(bench):
    """One task to learn from and one held out, written by hand."""

    def task(name, most):
        lines = [[20, 5, 2], [60, 9, most]]
        return {
            "id": name,
            "propose_prompt": 40,
            "views": [[30, 5, 2], [50, 7, 1]],
            "datasets": {key: lines for key in bench.arc_workload.KEYS},
        }

    parse = bench.arc_workload.parse
    return bench.arc_workload.Workload(parse([task("a", 1)]), parse([task("b", 6)]))


def settings(bench, **changes):
    few = {f"scale.{k}": v for k, v in SCALE.items()}
    return bench.arc_task.settings(few | changes)


SCALE = {"tasks": 1, "edits": 4, "heldout_tasks": 1, "heldout_edits": 2}


def make(bench, made_up, *, configuration="random", seed=0, **changes):
    exp = settings(bench, **changes)
    tasks = bench.arc_task.lengths(made_up, exp)
    return bench.arc_task.make(
        exp, tasks, configuration=configuration, vocab=50, seed=seed
    )


def test_settings_are_those_of_the_papers_config(bench):
    exp = bench.arc_task.settings({})
    assert (exp.scale.tasks, exp.scale.edits) == (11, 15)
    assert (exp.scale.heldout_tasks, exp.scale.heldout_edits) == (8, 5)
    assert (exp.inner.lora.rank, exp.edit.max_steps, exp.edit.batch) == (128, 375, 2)
    assert (exp.imitate.epochs, exp.imitate.batch) == (8, 5)
    assert bench.arc_task.settings({"data.most": 9}).data.most == 9
    with pytest.raises(ValueError, match=r"config\.data\.least: no such key"):
        bench.arc_task.settings({"data.least": 9})


def test_a_round_is_cut_to_what_is_asked(bench, made_up):
    exp = settings(bench, **{"data.most": 2, "answer.max_tokens": 6})
    tasks = bench.arc_task.lengths(made_up, exp)
    # Of three lines and of eight; the short ones come first.
    assert tasks.train[0].datasets["0000"] == ((20, 5), (60, 9))
    assert tasks.heldout[0].datasets["0110"] == ((60, 9), (60, 9))
    assert tasks.train[0].views == ((30, 5), (30, 5), (50, 6))
    scaled = bench.arc_task.lengths(made_up, exp, scale=0.1).train[0]
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
def test_more_than_there_is_is_refused(bench, made_up, changes, scale, rule):
    with pytest.raises(ValueError, match=rule):
        bench.arc_task.lengths(made_up, settings(bench, **changes), scale=scale)


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


def test_the_oracles_configuration_is_the_settings(bench, made_up):
    whole = make(bench, made_up, configuration="oracle")
    want = arc_edit.parse(whole.exp.task.oracle, whole.exp.edit)
    assert set(whole.train.edits[0]) == {want}
    job = whole.train.job(whole.train.trials[0], first_step_only=False)
    assert (job.epochs, job.total, job.batch, job.warmup) == (2, 4, 2, 11)
    assert sorted(map(len, job.lines)) == [25, 25, 69]
    assert sorted(job.given) == [20, 20, 60]


def test_jobs_are_what_their_configurations_ask_for(bench, made_up):
    part = make(bench, made_up).heldout
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


def test_every_adapter_is_asked_every_view(bench, made_up):
    part = make(bench, made_up).train
    asked = part.asked(part.trials[:2])
    assert [(r.adapter, len(r.prompt), n) for r, n in asked] == [
        (a, *one) for a in (0, 1) for one in ((30, 5), (30, 5), (50, 7))
    ]
    assert len({request for request, _ in asked}) == 6


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
        loss=plan.LossConfig("masked", 2, 0),
        batch=batch,
        given=given,
    )


def test_work_is_the_sum_over_jobs(bench):
    jobs = [job(10, 4, 6, epochs=3), job(8, 20, given=(5, 20), epochs=2)]
    # A line's last token predicts the end: 4 + 1 targets where 5 of 8 are given... the
    # first of a line that has none given is no target, and the end is one.
    assert bench.arc_plan.work(jobs) == (
        2,
        3 * 2 + 2,
        3 * 20 + 2 * 28,
        3 * 20 + 2 * (4 + 1),
        3 * 30 + 2 * 40,
    )


def test_a_plan_is_counted_by_its_steps(bench):
    # Lines of two tiles and of one, in steps of two rows of two tiles.
    cfg = plan.PlanConfig(tile=4, row_tokens=8, step_tokens=16, slots=2, active=2)
    jobs = [job(8, 8, epochs=2), job(4, 3)]
    got = bench.arc_plan.planned(jobs, cfg, pool=2)
    # The first job fills a step of its own, twice; the other's lines take half of one.
    assert (got["global_steps"], got["computed_tokens"]) == (3, 48)
    assert got["token_efficiency"] == (2 * 16 + 7) / 48
    assert got["adapters_per_step"] == 1.0
    pairs = 2 * 2 * (8 * 9 // 2) + 4 * 5 // 2 + 3 * 4 // 2
    # A row shorter than a block attends to all of itself.
    assert got["attention_efficiency"] == pairs / (3 * 2 * 8 * 8)
    apart = bench.arc_plan.planned(jobs, cfg, pool=1)
    assert apart["global_steps"] == 3


def test_attention_is_counted_by_blocks_of_queries(bench):
    from seal_jax import model

    row = 2 * model.BLOCK + model.BLOCK // 2
    cfg = plan.PlanConfig(row, row, row, 1, 1)
    got = bench.arc_plan.planned([job(row, batch=1)], cfg, pool=1)
    b = model.BLOCK
    computed = b * b + b * 2 * b + b // 2 * row
    assert got["attention_efficiency"] == row * (row + 1) // 2 / computed


def test_the_floor_equals_operations_counted_product_by_product(bench, made_up):
    shape = bench.common.SHAPES["tiny"]
    whole = make(
        bench,
        made_up,
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


# The result


def outcome_of(bench):
    clock = bench.round_phases.Clock(bench.arc_phases.PHASES)
    clock.seconds.update(adapt=4.0, evaluate=3.0, heldout_adapt=2.0, imitate=1.0)
    clock.seconds.update(propose=2.0, heldout_propose=1.0, heldout_evaluate=1.0)
    trained = packed.Trained({}, np.zeros(4), np.ones(4, bool), 0, 1000, 5, 70)
    done = bench.arc_phases.Done(
        generate.Generated([[1, 2], [3]], steps=2, prompt_tokens=9),
        [trained, trained],
        [generate.Generated([[1], [1, 1]], steps=2, prompt_tokens=4)],
    )
    both = {"train": done, "heldout": done}
    return bench.arc_phases.Outcome(clock, both, [(40, 50)], [1.0, 0.5])


def test_figures_are_counts_over_their_phase(bench, made_up):
    task = make(bench, made_up, configuration="oracle")
    got = bench.arc_round.figures(
        outcome_of(bench), task, flops_per_token=10, peak=30_000.0
    )
    assert got["seconds"] == 14.0
    train, heldout = got["train"], got["heldout"]
    assert (train["adapters"], train["adapters_per_s"]) == (4, 1.0)
    assert (train["tokens"], train["steps"]) == (4 * 2 * 119, 4 * 4)
    assert train["tokens_per_s"] == 4 * 2 * 119 / 4.0
    assert train["token_efficiency"] == 4 * 2 * 119 / 2000
    assert train["mfu"] == 10 * 4 * 2 * 119 / 4.0 / 30_000
    assert (train["device_steps"], heldout["adapters_per_s"]) == (10, 1.0)
    assert train["written"]["propose"]["tokens_per_s"] == 1.5
    assert heldout["written"]["evaluate"]["tokens_per_s"] == 3.0
    assert (got["imitated"], got["imitated_tokens"], got["imitate_steps"]) == (1, 90, 2)


def test_ratios_are_times_as_fast(bench, made_up):
    task, shape = make(bench, made_up), bench.common.SHAPES["tiny"]
    machine = bench.floor.Machine(1e9, 1e9)
    got = bench.arc_round.compared(30.0, task, shape, machine, published=True)
    assert got["ratio_vs_reference"] == 300.0
    assert got["ratio_vs_floor"] == got["floor"]["seconds"] / 30.0
    assert bench.arc_round.compared(30.0, task, shape, None, published=False) == {
        "floor": None,
        "ratio_vs_floor": None,
        "ratio_vs_reference": None,
    }


@pytest.mark.parametrize(
    "changes, shape, scale, whole",
    [
        ({}, "llama-3.2-1b", 1.0, True),
        ({"inner.slots": 8}, "llama-3.2-1b", 1.0, True),
        ({}, "llama-3.2-1b,layers=2", 1.0, False),
        ({}, "llama-3.2-1b", 0.5, False),
        ({"scale.edits": 14}, "llama-3.2-1b", 1.0, False),
        ({"data.most": 249}, "llama-3.2-1b", 1.0, False),
        ({"edit.max_steps": 100}, "llama-3.2-1b", 1.0, False),
        ({"views.reorders": 1}, "llama-3.2-1b", 1.0, False),
    ],
)
def test_only_the_papers_setting_is_compared_with_it(
    bench, changes, shape, scale, whole
):
    exp = bench.arc_task.settings(changes)
    assert bench.arc_round.is_published(exp, shape=shape, scale=scale) is whole


def test_flags_become_settings(bench):
    flags = ["--tasks=2", "--heldout-edits=3", "--set", "inner.slots=8"]
    assert bench.arc_round.overrides(bench.arc_round.parse_args(flags)) == {
        "scale.tasks": 2,
        "scale.heldout_edits": 3,
        "inner.slots": 8,
    }
    assert bench.arc_round.overrides(bench.arc_round.parse_args([])) == {}


@pytest.mark.parametrize(
    "flags, rule",
    [
        (["--set=inner.slots"], "--set inner.slots: must be KEY=VALUE"),
        (["--shape=tiny"], "inner.lora.rank=128 must lie in 1..16"),
        (["--tasks=12"], "--tasks=12 must be at most 11"),
        (["--shape=huge"], "'huge' must be one of tiny"),
        (
            ["--plan-only", "--set=inner.row_tokens=2048", "--set=inner.step_tokens=0"],
            "a training line takes 3042 positions, inner.row_tokens=2048; use 3072",
        ),
    ],
)
def test_a_round_that_cannot_run_is_refused_in_one_line(bench, capsys, flags, rule):
    assert bench.arc_round.main(flags) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert rule in err
    assert err.startswith("error: ") and err.count("\n") == 1


# A plan, and a round

FEW = ["--tasks=2", "--edits=2", "--heldout-tasks=1", "--heldout-edits=2"]
FEW += ["--set=data.most=3", "--set=edit.max_steps=4", "--scale-lengths=0.05"]
FEW += ["--set=inner.tile=8", "--set=inner.row_tokens=128"]
FEW += ["--set=inner.step_tokens=256", "--set=inner.slots=3", "--set=inner.active=2"]


def test_a_plan_says_what_a_round_will_take(bench, tmp_path, capsys):
    out = tmp_path / "plan.json"
    assert bench.arc_round.main([*FEW, "--plan-only", f"--out={out}"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert json.loads(out.read_text()) == result
    assert result["benchmark"] == "arc_plan"
    assert (result["train"]["adapters"], result["heldout"]["adapters"]) == (4, 2)
    assert result["train"]["prompts"] == 2 * (46 + 10)
    assert 0 < result["train"]["token_efficiency"] < 1
    assert result["train"]["padded_tokens"] > result["train"]["tokens"]
    assert set(result["floor"]["seconds_by_phase"]) == set(bench.arc_phases.PHASES)
    assert result["sizes"] == {
        "tile": 8,
        "row_tokens": 128,
        "step_tokens": 256,
        "slots": 3,
        "active": 2,
        "pool": 4,
    }
    assert lines[0].startswith("train: 4 adapters, ")
    assert lines[-2].startswith("floor on one NVIDIA H200: ")


def test_a_round_runs_and_does_the_work_it_states(bench, tmp_path, capsys):
    out = tmp_path / "round.json"
    flags = [f"--shape={SHAPE}", *FEW, f"--out={out}"]
    # Two waves of adapters; pages that are refilled.
    flags += ["--set=inner.pool=3", "--set=answer.batch=24", "--set=propose.batch=2"]
    flags += ["--set=inner.lora.rank=4", "--set=answer.max_tokens=16"]
    flags += ["--set=imitate.epochs=2"]
    assert bench.arc_round.main(flags) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert json.loads(out.read_text()) == result
    # What it did is what was planned.
    assert bench.arc_round.main([*flags[1:-1], "--plan-only"]) == 0
    planned = json.loads(capsys.readouterr().out.splitlines()[-1])
    for which in bench.arc_phases.SETS:
        one, want = result[which], planned[which]
        for key in ("adapters", "steps", "tokens", "padded_tokens"):
            assert one[key] == want[key] > 0
        assert one["device_steps"] == want["global_steps"]
        assert one["token_efficiency"] == want["token_efficiency"]
        wrote = one["written"]
        assert wrote["propose"]["tokens"] == want["proposed_tokens"]
        assert wrote["evaluate"]["texts"] == want["prompts"]
        assert wrote["evaluate"]["prompt_tokens"] == want["prompt_tokens"]
        assert wrote["evaluate"]["tokens"] == want["answer_tokens"]
    assert result["imitated"] == planned["imitated"] > 0
    assert result["imitate_steps"] == 2
    # Every phase took time, and nothing was compiled in any of them.
    assert tuple(result["seconds_by_phase"]) == bench.arc_phases.PHASES
    assert min(result["seconds_by_phase"].values()) > 0
    assert set(result["compile_seconds_by_phase"].values()) == {0.0}
    assert 0 < result["compile_seconds"] < result["warm_up_seconds"]
    assert (result["floor"], result["ratio_vs_reference"]) == (None, None)
    assert {"command", "commit", "date", "versions", "peak_memory_bytes"} <= set(result)
    assert [line.split()[0] for line in lines[1:9]] == [*bench.arc_phases.PHASES]


def test_the_tables_show_the_floor_where_there_is_one(bench, made_up):
    task, shape = make(bench, made_up), bench.common.SHAPES["tiny"]
    machine = bench.floor.Machine(1e9, 1e9)
    result = {
        **bench.arc_round.figures(
            outcome_of(bench), task, flops_per_token=10, peak=30_000.0
        ),
        **bench.arc_round.compared(14.0, task, shape, machine, published=True),
        "warm_up_seconds": 8.0,
        "compile_seconds": 6.0,
    }
    text = bench.arc_round.table(result)
    adapting = result["floor"]["seconds_by_phase"]["adapt"]
    assert f"adapt                   4.00     29%{adapting:10.2f}      0.00" in text
    assert ", MFU " in text
    assert "643 times as fast as the reference" in text
    assert "before: 8.0 s to warm up, 6.0 s of them compiling" in text
