"""What is made of jax's timings and of the processors' time beside them."""

import importlib

import pytest


@pytest.fixture(scope="module")
def bench(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module("compile_times")


# Half a processor for two seconds, then two of them for one, then none.
SAMPLES = ((0.0, 5.0), (2.0, 6.0), (3.0, 8.0), (9.0, 8.0))


def samples(bench):
    return [bench.Sample(*pair) for pair in SAMPLES]


def test_processors_time_is_that_between_two_moments(bench):
    took = lambda end, seconds: bench.processors(
        samples(bench), end=end, seconds=seconds
    )
    assert took(2.0, 2.0) == 1.0
    assert took(3.0, 1.0) == 2.0
    assert took(9.0, 9.0) == 3.0
    # What began before the first look, or ended after the last, is cut there.
    assert took(20.0, 30.0) == 3.0
    assert took(9.0, 5.0) == 0.0


def test_a_row_for_each_program_the_dearest_first(bench):
    spans = [
        bench.Span(bench.TRACED[0], "trace", 2.0, 2.0),
        bench.Span(bench.COMPILED, "jit(decode)", 3.0, 1.0),
        bench.Span(bench.COMPILED, "jit(decode)", 9.0, 6.0),
    ]
    decode, trace = bench.table(spans, samples(bench))
    assert decode == {
        "program": "jit(decode)",
        "count": 2,
        "clock": 7.0,
        "processors": 2.0,
    }
    assert trace == {"program": "trace", "count": 0, "clock": 2.0, "processors": 1.0}


def test_what_jax_compiles_is_recorded_by_name(bench):
    import jax

    def only_here(x):
        return x * 3

    with bench.recorded() as (spans, looks):
        jax.jit(only_here)(1.0).block_until_ready()
    (compiled,) = [s for s in spans if s.event == bench.COMPILED]
    assert "only_here" in compiled.program and compiled.seconds > 0
    assert {s.program for s in spans if s.event != bench.COMPILED} == {"trace"}
    assert looks[0].clock < compiled.end <= looks[-1].clock


def test_a_config_with_other_values(bench, root):
    path = f"{root}/configs/squad.py:small"
    values = bench.config_of(path, {"scale.passages": 1, "model.path": "here"})
    assert values["scale"]["passages"] == 1 and values["model"]["path"] == "here"
    assert values["model"]["chat"] == "auto"
    with pytest.raises(ValueError, match="no such file"):
        bench.config_of("configs/none.py", {})
