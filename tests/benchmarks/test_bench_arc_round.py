"""The benchmark of the few-shot round: its figures, its flags, and that it runs."""

import json

import arc_bench
import numpy as np
import pytest

from seal_jax.generation import generate
from seal_jax.training import packed

# The smallest decoder that takes adapters of rank 16.
SHAPE = "tiny,width=64,heads=2,kv_heads=2,head_dim=32,layers=1"


@pytest.fixture(scope="module")
def bench(root):
    with arc_bench.modules(root) as found:
        yield found


# The result


def outcome_of(bench):
    clock = bench.round_phases.Clock(bench.arc_phases.PHASES)
    clock.seconds.update(adapt=4.0, evaluate=3.0, heldout_adapt=2.0, imitate=1.0)
    clock.seconds.update(propose=2.0, heldout_propose=1.0, heldout_evaluate=1.0)
    trained = packed.TrainedAdapters({}, np.zeros(4), np.ones(4, bool), 0, 1000, 5, 70)
    done = bench.arc_phases.Done(
        generate.Generated([[1, 2], [3]], steps=2, prompt_tokens=9),
        [trained, trained],
        [generate.Generated([[1], [1, 1]], steps=2, prompt_tokens=4)],
    )
    both = {"train": done, "heldout": done}
    return bench.arc_phases.Outcome(clock, both, [(40, 50)], [1.0, 0.5])


def test_figures_are_counts_over_their_phase(bench):
    task = arc_bench.make(bench, configuration="oracle")
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


def test_ratios_are_times_as_fast(bench):
    task, shape = arc_bench.make(bench), bench.common.SHAPES["tiny"]
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
            [
                "--plan-only",
                "--set=inner.row_tokens=2048",
                "--set=inner.chunk_tokens=0",
                "--set=inner.step_tokens=0",
            ],
            "a training line takes 3042 positions, inner.row_tokens=2048; use 3048",
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
        "active": 3,
        "chunk_tokens": 0,
        "by_slot": True,
        "pool": 4,
    }
    assert lines[0].startswith("train: 4 adapters, ")
    assert lines[-2].startswith("floor on one NVIDIA H200: ")


def test_a_round_runs_and_does_the_work_it_states(bench, tmp_path, capsys, monkeypatch):
    # What is planned is for this device, too.
    monkeypatch.setattr(bench.arc_round, "BY_SLOT", False)
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


def test_the_tables_show_the_floor_where_there_is_one(bench):
    task, shape = arc_bench.make(bench), bench.common.SHAPES["tiny"]
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
