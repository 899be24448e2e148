"""The benchmark of a whole round: its work, its figures, and that it runs."""

import dataclasses
import importlib
import json

import command_ends
import numpy as np
import pytest

from seal_jax.generation import generate
from seal_jax.training import packed

MODULES = ("common", "workload", "floor", "round_task", "round_phases", "round")

# The smallest decoder that takes adapters of rank 64.
SHAPE = "tiny,width=64,heads=2,kv_heads=2,head_dim=32,layers=1"


@pytest.fixture(scope="module")
def bench(root):
    """The benchmark's modules, which find each other as they do when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        modules = {name: importlib.import_module(name) for name in MODULES}
        yield type("Bench", (), modules)


@pytest.fixture
def made_up(bench):
    """Two articles, written by hand."""

    def edit(tokens, *lines):
        return {
            "tokens": tokens,
            "lines": lines,
            "answers": [[0, 30], [10, 64], [5, 5]],
        }

    def article(*edits):
        return {
            "proposal_prompt": 40,
            "question_prompts": [20, 30],
            "gold_answers": [1, 2],
            "base_answers": [15, 64],
            "edits": edits,
        }

    return bench.workload.parse(
        [
            article(edit(50, 10, 100), edit(3000, 20, 30, 1100)),
            article(edit(9, 4), edit(8, 4, 4)),
        ]
    )


def asked(bench, **changes):
    overrides = {"scale.passages": 2, "scale.edits": 2, "scale.seeds": 2}
    return bench.round_task.settings(overrides | changes)


# The work


def test_settings_are_those_of_the_papers_config(bench):
    exp = bench.round_task.settings({})
    assert (exp.scale.passages, exp.scale.edits, exp.scale.seeds) == (50, 5, 3)
    assert exp.inner.epochs == 10
    assert exp.inner.lora.rank == 32
    fewer = bench.round_task.settings({"inner.epochs": 2, "propose.batch": 8})
    assert (fewer.inner.epochs, fewer.propose.batch) == (2, 8)
    same = dataclasses.replace(fewer.inner, epochs=10)
    assert same == exp.inner
    imitating = exp.imitate
    assert (imitating.lora.rank, imitating.batch, imitating.epochs) == (64, 10, 2)


@pytest.mark.parametrize(
    "key, value, rule",
    [
        ("inner.epoch", 2, "config.inner.epoch: no such key; did you mean"),
        ("outer.epochs", 2, "outer.epochs=2 must be a key of configs/squad.py"),
        ("inner.epochs", "two", "inner.epochs='two' must be a key .* of its type"),
        ("inner.epochs", 0, "inner.epochs=0 must be at least 1"),
    ],
)
def test_settings_it_does_not_have_are_refused_in_one_line(bench, key, value, rule):
    with pytest.raises(ValueError, match=rule) as caught:
        bench.round_task.settings({key: value})
    assert "\n" not in str(caught.value)


def test_a_round_is_cut_to_what_is_asked_and_what_fits(bench, made_up):
    exp = asked(bench, **{"scale.passages": 1})
    (article,) = bench.round_task.lengths(made_up, exp)
    assert [edit.tokens for edit in article.edits] == [50, 2048]
    assert article.edits[0].answers == ((0, 30), (10, 64))
    # A row of 1024 tokens holds 1016 of a line beside its 8 sampled pads.
    assert article.edits[1].lines == (20, 30, 1016)
    assert article.proposal_prompt == 40


def test_lengths_are_scaled_but_blank_stays_blank(bench, made_up):
    first, last = bench.round_task.lengths(made_up, asked(bench), scale=0.1)
    assert (first.proposal_prompt, first.question_prompts) == (4, (2, 3))
    assert first.base_answers == (2, 6)
    assert first.edits[0].lines == (1, 10)
    assert first.edits[0].answers == ((0, 3), (1, 6))
    assert last.edits[0].lines == (1,)


@pytest.mark.parametrize(
    "changes, scale, rule",
    [
        ({"scale.passages": 3}, 1.0, "--articles=3 must be at most 2"),
        ({"scale.edits": 3}, 1.0, "--edits=3 must be at most 2"),
        ({"scale.seeds": 4}, 1.0, "--seeds=4 must be at most 3"),
        ({}, 0.0, r"--scale-lengths=0.0 must lie in \(0, 1\]"),
        ({}, 1.5, r"--scale-lengths=1.5 must lie in \(0, 1\]"),
    ],
)
def test_more_than_there_is_is_refused(bench, made_up, changes, scale, rule):
    with pytest.raises(ValueError, match=rule):
        bench.round_task.lengths(made_up, asked(bench, **changes), scale=scale)


def test_the_published_round_has_its_known_size(bench):
    exp = bench.round_task.settings({})
    articles = bench.round_task.lengths(bench.workload.load(), exp)
    task = bench.round_task.task(exp, articles, vocab=50)
    jobs = [task.job(trial, first_step_only=False) for trial in task.trials]
    assert len(jobs) == 750
    assert sum(job.total for job in jobs) == 65_490
    totals = [job.total for job in jobs]
    assert totals == sorted(totals, reverse=True)
    warming = [task.job(trial, first_step_only=True) for trial in task.trials]
    assert {job.total for job in warming} == {1}


def test_tokens_have_the_lengths_and_differ(bench, made_up):
    exp = asked(bench)
    articles = bench.round_task.lengths(made_up, exp)
    task = bench.round_task.task(exp, articles, vocab=1000)
    assert [len(prompt) for prompt in task.prompts] == [40, 40]
    assert [[len(q) for q in asked] for asked in task.questions] == [[20, 30]] * 2
    lengths = [[[len(x) for x in edit] for edit in by] for by in task.lines]
    assert lengths == [[[10, 100], [20, 30, 1016]], [[4], [4, 4]]]
    assert task.prompts[0] != task.prompts[1]
    assert task.questions[0] != task.questions[1]
    assert task.lines[1][0][0] not in task.lines[1][1]
    # Seeds of an edit train the same lines, each in its own order.
    trials = [trial for trial in task.trials if trial[:2] == (0, 1)]
    one, other = (task.job(trial, first_step_only=False) for trial in trials)
    assert one.lines == other.lines
    assert one.order() != other.order()


# The result


def outcome_of(bench, **changes):
    clock = bench.round_phases.Clock()
    clock.seconds.update(propose=2.0, adapt=4.0, evaluate=3.0, imitate=1.0)
    trained = packed.TrainedAdapters(
        {}, np.zeros(4), np.ones(4, bool), 600, 1000, 5, 70
    )
    made = dict(
        clock=clock,
        written={
            "propose": [generate.Generated([[1, 2], [3]], steps=2, prompt_tokens=9)],
            "evaluate": [
                generate.Generated([[1], []], steps=1, prompt_tokens=5),
                generate.Generated([[1, 1]], steps=2, prompt_tokens=4),
            ],
        },
        trained=[trained, trained],
        kept=[(40, 50), (40, 9)],
        losses=[1.0, 0.5],
    )
    return bench.round_phases.Outcome(**made | changes)


def small_task(bench, made_up):
    exp = asked(bench)
    articles = bench.round_task.lengths(made_up, exp)
    return bench.round_task.task(exp, articles, vocab=50)


def test_figures_are_counts_over_their_phase(bench, made_up):
    got = bench.round.figures(
        outcome_of(bench), small_task(bench, made_up), flops_per_token=10, peak=30_000.0
    )
    assert got["seconds"] == 10.0
    assert (got["adapters"], got["adapters_per_s"]) == (8, 2.0)
    lines = 10 + 100 + 20 + 30 + 1016 + 4 + 4 + 4
    assert got["tokens"] == lines * 10 * 2  # Epochs and seeds.
    assert got["tokens_per_s"] == got["tokens"] / 4
    assert (got["steps"], got["steps_per_s"], got["device_steps"]) == (140, 35.0, 10)
    assert got["token_efficiency"] == 0.6
    assert (got["flops_per_s"], got["mfu"]) == (3000.0, 0.1)
    assert got["written"]["propose"]["tokens_per_s"] == 1.5
    assert got["written"]["evaluate"] == {
        "texts": 3,
        "prompt_tokens": 9,
        "tokens": 3,
        "tokens_per_s": 1.0,
        "device_steps": 3,
    }
    assert (got["imitated"], got["imitated_tokens"], got["imitate_steps"]) == (
        2,
        139,
        2,
    )


def test_ratios_are_times_as_fast(bench, made_up):
    task, shape = small_task(bench, made_up), bench.common.SHAPES["tiny"]
    machine = bench.floor.Machine(1e9, 1e9)
    got = bench.round.compared(outcome_of(bench), task, shape, machine, published=True)
    assert got["ratio_vs_reference"] == 4320.0
    least = got["floor"]["seconds"]
    assert least == sum(got["floor"]["seconds_by_phase"].values())
    assert got["ratio_vs_floor"] == least / 10.0
    assert (got["floor"]["flops_per_s"], got["floor"]["bytes_per_s"]) == (1e9, 1e9)
    assert bench.round.compared(
        outcome_of(bench), task, shape, None, published=False
    ) == {"floor": None, "ratio_vs_floor": None, "ratio_vs_reference": None}


@pytest.mark.parametrize(
    "changes, shape, scale, whole",
    [
        ({}, "qwen2.5-7b", 1.0, True),
        ({"inner.loss.mode": "masked"}, "qwen2.5-7b", 1.0, True),
        ({}, "qwen2.5-0.5b", 1.0, False),
        ({}, "qwen2.5-7b,layers=2", 1.0, False),
        ({}, "qwen2.5-7b", 0.5, False),
        ({"scale.passages": 49}, "qwen2.5-7b", 1.0, False),
        ({"scale.seeds": 1}, "qwen2.5-7b", 1.0, False),
        ({"inner.epochs": 9}, "qwen2.5-7b", 1.0, False),
    ],
)
def test_only_the_references_round_is_compared_with_it(
    bench, changes, shape, scale, whole
):
    exp = bench.round_task.settings(changes)
    assert bench.round.is_published(exp, shape=shape, scale=scale) is whole


def test_flags_become_settings(bench):
    flags = ["--articles=2", "--loss=masked", "--set", "propose.batch=8"]
    flags += ["--set=inner.lora.targets=('o_proj',)", "--set", "model.kernel=xla"]
    assert bench.round.overrides(bench.round.parse_args(flags)) == {
        "scale.passages": 2,
        "inner.loss.mode": "masked",
        "propose.batch": 8,
        "inner.lora.targets": ("o_proj",),
        "model.kernel": "xla",
    }
    assert bench.round.overrides(bench.round.parse_args([])) == {}


@pytest.mark.parametrize(
    "flags, rule",
    [
        (["--set=propose.batch"], "--set propose.batch: must be KEY=VALUE"),
        (["--shape=tiny"], "inner.lora.rank=32 must lie in 1..16"),
        (["--articles=51"], "--articles=51 must be at most 50"),
        (["--seeds=0"], "--seeds=0 must be at least 1"),
        (["--shape=huge"], "'huge' must be one of tiny"),
    ],
)
def test_a_round_that_cannot_run_is_refused_in_one_line(bench, capsys, flags, rule):
    assert command_ends.status(bench.round.main, flags) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert rule in err
    assert err.startswith("error: ") and err.count("\n") == 1


# A round


def test_a_round_runs_and_does_the_work_it_states(bench, tmp_path, capsys):
    out = tmp_path / "round.json"
    flags = [f"--shape={SHAPE}", "--articles=2", "--edits=2", "--seeds=2"]
    flags += ["--epochs=2", "--scale-lengths=0.1", f"--out={out}"]
    # Two waves of adapters; pages that are refilled.
    for one in ("inner.pool=5", "inner.slots=3", "inner.row_tokens=64"):
        flags += [f"--set={one}"]
    for one in ("inner.step_tokens=128", "propose.batch=2", "answer.batch=24"):
        flags += [f"--set={one}"]
    assert bench.round.main(flags) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert json.loads(out.read_text()) == result
    # What it did is what was asked for.
    exp = bench.round_task.settings(
        {"scale.passages": 2, "scale.edits": 2, "scale.seeds": 2}
    )
    articles = bench.round_task.lengths(bench.workload.load(), exp, scale=0.1)
    edits = [edit for article in articles for edit in article.edits]
    answers = [row for edit in edits for row in edit.answers]
    base = [article.base_answers for article in articles]
    proposed, evaluated = (result["written"][n] for n in ("propose", "evaluate"))
    assert proposed["texts"] == 4
    assert proposed["tokens"] == sum(edit.tokens for edit in edits)
    assert proposed["prompt_tokens"] == sum(a.proposal_prompt for a in articles)
    assert evaluated["texts"] == sum(map(len, answers)) + sum(map(len, base))
    assert evaluated["tokens"] == sum(map(sum, answers)) + sum(map(sum, base))
    assert result["adapters"] == 8
    assert result["steps"] == sum(len(edit.lines) for edit in edits) * 2 * 2
    assert result["tokens"] == sum(sum(edit.lines) for edit in edits) * 2 * 2
    assert 0 < result["token_efficiency"] < 1
    assert (result["imitated"], result["imitate_steps"]) == (2, 2)
    # Every phase took time, and nothing was compiled in any of them.
    assert tuple(result["seconds_by_phase"]) == bench.round_phases.PHASES
    assert min(result["seconds_by_phase"].values()) > 0
    assert sum(result["seconds_by_phase"].values()) == pytest.approx(result["seconds"])
    assert set(result["compile_seconds_by_phase"].values()) == {0.0}
    assert 0 < result["compile_seconds"] < result["warm_up_seconds"]
    assert result["sizes"]["pool"] == 5
    assert (result["mfu"], result["floor"], result["ratio_vs_reference"]) == (None,) * 3
    assert {"command", "commit", "date", "versions", "peak_memory_bytes"} <= set(result)
    assert [line.split()[0] for line in lines[1:6]] == [*bench.round_phases.PHASES]


def test_an_adapter_that_diverges_ends_it(bench, made_up, monkeypatch):
    task = small_task(bench, made_up)
    finite = np.array([True, False, True])
    trained = packed.TrainedAdapters({}, np.zeros(3), finite, 1, 1, 1, 1)
    monkeypatch.setattr(packed, "train", lambda *args, **kwargs: trained)
    policy = type("Learner", (), {"params": {}, "arch": None})
    with pytest.raises(ValueError, match=r"\[\(0, 1, 1\)\] must stay finite"):
        bench.round_phases.adapt(policy, task, task.trials[:3], None, warm_up=False)


def test_the_table_shows_the_floor_where_there_is_one(bench, made_up):
    task, shape = small_task(bench, made_up), bench.common.SHAPES["tiny"]
    outcome = outcome_of(bench)
    machine = bench.floor.Machine(1e9, 1e9)
    result = {
        **bench.round.figures(outcome, task, flops_per_token=10, peak=30_000.0),
        **bench.round.compared(outcome, task, shape, machine, published=True),
        "warm_up_seconds": 8.0,
        "compile_seconds": 6.0,
    }
    text = bench.round.table(result)
    adapting = result["floor"]["seconds_by_phase"]["adapt"]
    assert f"adapt           4.00     40%{adapting:10.2f}      0.00" in text
    assert "token efficiency 60.0%, MFU 10%" in text
    assert "4.32e+03 times as fast as the reference" in text
    assert "before: 8.0 s to warm up, 6.0 s of them compiling" in text
