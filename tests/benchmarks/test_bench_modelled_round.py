"""The modelled round: programs' seconds as often as they run, beside the floor."""

import importlib
import json

import pytest


@pytest.fixture(scope="module")
def load(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module


@pytest.fixture(scope="module")
def bench(load):
    return load("modelled_round")


@pytest.fixture(scope="module")
def aot(load):
    return load("aot_programs")


@pytest.fixture(scope="module")
def training(load):
    return load("aot_training")


@pytest.fixture(scope="module")
def phases(load):
    return load("modelled_phases")


@pytest.fixture(scope="module")
def tables(load):
    return load("modelled_tables")


@pytest.fixture
def made(training):
    """Figures of a program as if it had been compiled: a second, and loops of one."""
    asked = []

    def compiled(name):
        asked.append(name)
        loops = {
            training.TURNOVER: 0.5,
            training.MICRO_BATCHES: 3.0,
            training.HEAD_CHUNKS: 2.0,
            training.FOLDS: 0.0,
        }
        return {
            "program": name,
            "per": "run",
            "seconds": 1.0,
            "flop": 7.0,
            "bytes": 100.0,
            "kernels": 10.0,
            "temporary_bytes": 1000,
            "by_category": {},
            "jax": "0.1",
            "loops": {
                loop: {"trips": trips, "seconds": 0.1} for loop, trips in loops.items()
            },
        }

    compiled.asked = asked
    return compiled


# Programs


def test_programs_have_the_sizes_of_the_configs(training):
    squad = training.squad_engine({})
    assert (squad.rank, squad.targets, squad.pool) == (32, ("q_proj", "v_proj"), 750)
    assert squad.plan.step_tokens == 4096
    seven = training.squad_engine(training.ALL_SEVEN)
    assert (seven.targets, seven.plan.step_tokens, seven.pool) == (
        training.ALL,
        2048,
        375,
    )
    frozen = training.continual_engine()
    assert (frozen.frozen_rank, frozen.frozen_rows) == (7 * 32, 64)
    arc = training.arc_engine()
    assert (arc.rank, arc.plan.step_tokens, arc.pool) == (128, 10240, 165)


def test_every_tested_program_has_a_bound(aot, root):
    bounds = json.loads((root / "tests" / "aot" / "bounds.json").read_text())
    assert set(bounds) == set(aot.TESTED)
    for limits in bounds.values():
        assert set(limits) == {"bytes", "kernels", "temporary_bytes", "jax"}


def test_what_few_layers_cost_is_continued_to_all(aot):
    few = {"a": 10.0, "of": {"b": 3, "kind": "x"}, "list": ["one"], "yes": True}
    more = {"a": 14.0, "of": {"b": 4, "kind": "x"}, "list": ["two"], "yes": False}
    assert aot.continued(few, more, 13) == {
        "a": 62.0,
        "of": {"b": 16, "kind": "x"},
        "list": ["two"],
        "yes": False,
    }


def test_a_loop_costs_what_one_more_turn_of_it_adds(aot, load):
    text = (
        "%body (t: f32[8]) -> f32[8] {\n  %a = f32[8]{0} parameter(0)\n"
        "  ROOT %n = f32[8]{0} negate(%a)\n}\n\n"
        "ENTRY %main (t: f32[8]) -> f32[8] {\n  %t = f32[8]{0} parameter(0)\n"
        "  ROOT %l = f32[8]{0} while(%t), body=%body, "
        'metadata={op_name="jit(f)/while"}\n}\n'
    )
    told = load("hlo_cost").Told(loops={"/while$": 3.0})
    ((loop, cost),) = aot.loop_costs(text, told).items()
    assert (loop, cost["trips"]) == ("/while$", 3.0)
    assert cost["seconds"] == pytest.approx(2e-6 + 64 / (0.9 * 4.8e12))


# Figures


def test_a_program_is_compiled_once_and_kept(bench, made, tmp_path):
    programs = bench.Programs(tmp_path / "new", made)
    assert programs.seconds("one") == programs.seconds("one") == 1.0
    assert made.asked == ["one"]
    again = bench.Programs(tmp_path / "new", made)
    assert again.seconds("one") == 1.0
    assert made.asked == ["one"]
    assert bench.Programs(None, made).seconds("one") == 1.0
    assert made.asked == ["one", "one"]


def test_other_trips_of_a_loop_change_its_seconds(bench, training, made):
    programs = bench.Programs(None, made)
    assert programs.seconds("one", {training.TURNOVER: 0.5}) == 1.0
    assert programs.seconds("one", {training.TURNOVER: 2.5}) == pytest.approx(1.2)
    assert programs.seconds("one", {training.MICRO_BATCHES: 1.0}) == pytest.approx(0.8)


def test_bounds_are_a_little_above_the_figures(bench, aot, made, tmp_path):
    bench.write_bounds(bench.Programs(None, made), tmp_path / "bounds.json")
    bounds = json.loads((tmp_path / "bounds.json").read_text())
    assert set(bounds) == set(aot.TESTED)
    assert bounds["packed_7b_qv"] == {
        "bytes": 103.0,
        "kernels": 10.3,
        "temporary_bytes": 1030.0,
        "jax": "0.1",
    }


# Rounds


def test_chunks_are_of_the_tokens_with_loss_in_each_step(phases):
    from seal_jax.training import inner, plan
    from seal_jax.training.settings import LossConfig, PlanConfig

    # A line of 9 tokens of which 5 are given: 4 targets and the end of the text.
    job = plan.Job(
        ((1,) * 9,), (0,), 3, 1e-3, 1.0, LossConfig("masked", 64, 0), given=(5,)
    )
    cfg = inner.EngineConfig(("q_proj",), 2, 4.0, PlanConfig(4, 32, 32, 2, 2), pool=2)
    taken = phases.planned([job, job], cfg, chunk=4)
    assert (taken.global_steps, taken.head_chunks) == (3, 3 * 3)
    assert taken.token_efficiency == 2 * 9 / 32
    assert phases.planned([job], cfg, chunk=5).head_chunks == 3


@pytest.fixture(scope="module")
def rounds(bench, training):
    def compiled(name):
        loops = dict.fromkeys(
            (
                training.TURNOVER,
                training.MICRO_BATCHES,
                training.HEAD_CHUNKS,
                training.FOLDS,
            ),
            0.0,
        )
        known = {"packed_7b_qv": 0.1, "packed_7b_all": 0.2, "packed_1b_arc": 0.3}
        each = known.get(name, 0.01)
        return {
            "program": name,
            "per": "run",
            "seconds": each,
            "flop": 1.0,
            "bytes": 1.0,
            "kernels": 1.0,
            "by_category": {
                part: {"seconds": each if part == "attention" else 0.0}
                for part in bench.roofline.CATEGORIES
            },
            "jax": "0.1",
            "loops": {
                loop: {"trips": trips, "seconds": 0.0} for loop, trips in loops.items()
            },
        }

    return bench.run(bench.Programs(None, compiled), list(bench.ROUNDS))


def test_training_takes_a_program_for_each_global_step(rounds):
    for name, phase, each in (
        ("7b_qv", "adapt", 0.1),
        ("7b_all", "adapt", 0.2),
        ("1b_arc", "adapt", 0.3),
        ("1b_arc", "heldout_adapt", 0.3),
    ):
        one = rounds["rounds"][name]["phases"][phase]
        assert one["modelled_seconds"] == pytest.approx(each * one["global_steps"])
        # Chunks of 512 tokens at 7B: of these most carry loss, of a grid's few.
        assert (
            0 < one["head_chunks"] / one["global_steps"] <= (20 if "1b" in name else 8)
        )
        # Full steps: no plan takes more than a quarter above what its tokens need.
        assert one["token_efficiency"] > 0.75


def test_phases_add_up_and_stand_beside_the_floor_of_the_round(rounds):
    for made in rounds["rounds"].values():
        phases = made["phases"].values()
        for key in ("modelled_seconds", "floor"):
            assert made[key] == pytest.approx(sum(one[key] for one in phases))
        for one in [made, *phases]:
            assert one["ratio"] == pytest.approx(one["floor"] / one["modelled_seconds"])
    # By hand, with the eight sampled pads of each line: 145 + 7 + 4 + 2 seconds.
    published = rounds["rounds"]["7b_qv"]
    assert published["floor"] == pytest.approx(158, rel=0.01)
    assert published["phases"]["adapt"]["floor"] == pytest.approx(145, rel=0.01)
    assert rounds["rounds"]["7b_all"]["phases"]["adapt"]["floor"] == pytest.approx(
        180, rel=0.01
    )


def test_the_page_has_the_tables_between_its_marks(tables, rounds, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{tables.BEGIN}old\n{tables.END}after\n")
    tables.write_page(rounds, page)
    text = page.read_text()
    assert text.startswith("before\n<!-- modelled:begin -->\n| round | phase |")
    assert text.endswith("jax " + rounds["jax"] + ".\n<!-- modelled:end -->\nafter\n")
    whole = rounds["rounds"]["7b_qv"]
    assert (
        f"| 7B, q and v | **all** | {whole['modelled_seconds']:.1f} | "
        f"{whole['floor']:.1f} | {whole['ratio']:.2f} |\n"
    ) in text
    assert "| `packed_7b_qv`, run | 0.0 | 100.0 | 0.0 |" in text


def test_the_tables_of_the_page_are_those_of_the_result(tables, root):
    result = json.loads((tables.common.RESULTS / "h200-aot" / "round.json").read_text())
    page = (root / "docs" / "engine.md").read_text(encoding="utf-8")
    assert f"{tables.BEGIN}{tables.markdown(result)}{tables.END}" in page


def test_the_result_says_that_it_is_modelled_and_by_what(tables, rounds):
    assert rounds["modelled"] is True
    assert rounds["device"] == "h200-aot"
    assert rounds["constants"]["flop"] == pytest.approx(0.8 * 989e12)
    text = tables.table(rounds)
    assert "modelled for one NVIDIA H200, not measured: jax " in text
    assert text.count("adapt") == 4
