"""What is made of jax's timings, and of two runs."""

import importlib

import pytest


@pytest.fixture(scope="module")
def bench(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module("compile_times")


def test_a_row_for_each_program_the_dearest_first(bench):
    spans = [
        bench.Span(bench.TRACED[0], "trace", 2.0),
        bench.Span(bench.COMPILED, "jit(decode)", 1.0),
        bench.Span(bench.COMPILED, "jit(decode)", 6.0),
    ]
    assert bench.table(spans) == [
        {"program": "jit(decode)", "count": 2, "seconds": 7.0},
        {"program": "trace", "count": 0, "seconds": 2.0},
    ]


def test_waiting_is_what_the_first_run_took_longer(bench):
    compiled = [bench.Span(bench.COMPILED, "jit(decode)", 6.0)]
    traced = [bench.Span(bench.TRACED[0], "trace", 0.1)]
    found = bench.result(bench.Took(9.0, 12.0, compiled), bench.Took(4.0, 5.0, traced))
    assert (found["waited_seconds"], found["processor_seconds"]) == (5.0, 7.0)
    assert (found["programs"], found["run_seconds"]) == (1, 4.0)
    with pytest.raises(ValueError, match=r"second run as well: jit\(decode\)"):
        bench.result(*[bench.Took(4.0, 5.0, compiled)] * 2)


def test_what_jax_compiles_is_recorded_by_name(bench):
    import jax

    def only_here(x):
        return x * 3

    with bench.recorded() as spans:
        jax.jit(only_here)(1.0).block_until_ready()
    (compiled,) = [s for s in spans if s.event == bench.COMPILED]
    assert "only_here" in compiled.program and compiled.seconds > 0
    assert {s.program for s in spans if s.event != bench.COMPILED} == {"trace"}


def test_a_config_with_other_values(bench, root):
    path = f"{root}/configs/squad.py:small"
    values = bench.config_of(path, {"scale.passages": 1, "model.path": "here"})
    assert values["scale"]["passages"] == 1 and values["model"]["path"] == "here"
    assert values["model"]["chat"] == "auto"
    with pytest.raises(ValueError, match="no such file"):
        bench.config_of("configs/none.py", {})
