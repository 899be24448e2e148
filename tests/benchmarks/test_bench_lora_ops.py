"""The low-rank matmul's benchmark: what it times, what it writes, what it reads off."""

import importlib
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seal_kernels.lora_matmul import cases, dispatch, xla
from seal_kernels.tuned import table

SMALL = cases.Case("small", 8, 16, 24, 2, 3, 2, "float32")


@pytest.fixture(scope="module")
def lora_ops(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module("lora_ops")


# Matmuls that must be in the loop: base, x a^T and u b; base, v, low, da and db.
@pytest.mark.parametrize(
    ("name", "direction", "dots"),
    [
        ("gemm", "forward", 1),
        ("gemm", "backward", 1),
        ("gemm", "both", 2),
        ("xla", "forward", 3),
        ("xla", "backward", 5),
        ("xla", "both", 8),
    ],
)
def test_the_timed_loop_holds_all_of_the_work(
    lora_ops, monkeypatch, name, direction, dots
):
    # Small products too as matmuls, which can be counted.
    monkeypatch.setattr(xla, "MOST_TERMS", 0)
    loop = lora_ops.repeated(lora_ops.op(name, direction), 5)
    text = jax.jit(loop).lower(*lora_ops.operands(SMALL)).compile().as_text()
    # By name and size: da and db are the same product of other matrices.
    found = set()
    for line in text.splitlines():
        if dot := re.search(r"\[([\d,]+)\]\S* dot\(.*op_name=\"([^\"]*)\"", line):
            sizes = sorted(int(n) for n in dot[1].split(",") if n != "1")
            found.add((dot[2], tuple(sizes)))
    assert len(found) == dots
    assert all("while/body" in where for where, _ in found)


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_every_turn_of_the_loop_computes_the_operation(lora_ops, direction):
    run, args = lora_ops.op("xla", direction), lora_ops.operands(SMALL)
    once = sum(float(leaf.ravel()[0]) for leaf in jax.tree.leaves(run(*args)))
    looped = jax.jit(lora_ops.repeated(run, 3))(*args)
    np.testing.assert_allclose(looped, 3 * once, rtol=1e-5)


def test_both_directions_are_the_two_of_the_kernel(lora_ops):
    args = lora_ops.operands(SMALL)
    y, (dx, da, db) = lora_ops.op("xla", "both")(*args)
    np.testing.assert_allclose(lora_ops.op("xla", "forward")(*args), y, rtol=1e-6)
    for ours, theirs in zip(
        lora_ops.op("xla", "backward")(*args), (dx, da, db), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_operations_counted(lora_ops):
    base, side = 2 * 8 * 16 * 24, 2 * 8 * 2 * (16 + 24)
    count = lora_ops.flops
    assert count(SMALL, "gemm", "forward") == base
    assert count(SMALL, "gemm", "both") == 2 * base
    assert count(SMALL, "xla", "forward") == base + side
    assert count(SMALL, "xla", "backward") == base + 2 * side
    assert count(SMALL, "xla", "both") == 2 * base + 3 * side


def test_ratios_above_one_are_in_favour(lora_ops):
    taken = {"gemm": [1.0, 1.0], "xla": [4.0, 4.0], "mosaic_gpu": [2.0, 2.0]}
    made = lora_ops.figures(taken, "mosaic_gpu", work=100, peak=200.0)
    assert (made["ratio_vs_xla"], made["ratio_vs_gemm"]) == (2.0, 0.5)
    assert made["share_of_peak"] == 0.25


def test_an_error_is_the_worst_of_all_arrays(lora_ops):
    want = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([1.0, 0.0])}
    got = {"a": jnp.array([3.0, 4.5]), "b": jnp.array([1.0, -0.3])}
    assert lora_ops.worst_error(got, want) == pytest.approx(0.3)
    assert lora_ops.worst_error(want, want) == 0.0


def timings(lora_ops, **taken) -> dict:
    one = {name: lora_ops.figures(taken, name, work=1, peak=1.0) for name in taken}
    return {"timings": {"forward": one, "backward": one, "both": one}}


def test_a_kernel_is_tuned_in_only_if_it_is_ahead_by_more_than_noise(lora_ops):
    ahead = timings(
        lora_ops, gemm=[1.0] * 3, xla=[2.0, 2.1, 2.2], mosaic_gpu=[1.8, 1.9, 1.95]
    )
    noisy = timings(
        lora_ops, gemm=[1.0] * 3, xla=[2.0, 2.1, 2.2], mosaic_gpu=[1.8, 1.9, 2.05]
    )
    for measured, best in ((ahead, "mosaic_gpu"), (noisy, "xla")):
        rows = lora_ops.entries(SMALL, measured)
        assert [row["direction"] for row in rows] == list(table.DIRECTIONS)
        assert {row["implementation"] for row in rows} == {best}
        assert {row["xla_seconds"] for row in rows} == {2.1}


def test_what_is_written_is_what_auto_reads(lora_ops, tmp_path):
    path = table.path_of("Some GPU", tmp_path)
    shape = table.Shape("forward", "float32", 8, 16, 24, 2, 2)
    slow = timings(lora_ops, gemm=[1.0], xla=[2.0], mosaic_gpu=[3.0])
    fast = timings(lora_ops, gemm=[1.0], xla=[2.0], mosaic_gpu=[1.5])
    other = cases.Case("other", 64, 16, 24, 2, 3, 2, "float32")
    lora_ops.write_tuned(lora_ops.entries(SMALL, slow), path)
    assert dispatch.choose(shape, "Some GPU", tmp_path)[0] == "plain"
    # Measured again: the shape's rows are replaced, the other's are added.
    table._load.cache_clear()
    lora_ops.write_tuned(lora_ops.entries(SMALL, fast), path)
    lora_ops.write_tuned(lora_ops.entries(other, slow), path)
    assert dispatch.choose(shape, "Some GPU", tmp_path)[0] == "mosaic_gpu"
    assert len(json.loads(path.read_text())["lora_matmul"]) == 4


CUBLAS = """
ENTRY %main {
  %cc.1 = (bf16[128,16,32]{2,1,0}, s8[64]{0}) custom-call(%a), \
custom_call_target="__cublas$lt$matmul", backend_config={"beta":0}
  %gte = bf16[128,16,32]{2,1,0} get-tuple-element(%cc.1), index=0
  %cc.2 = (bf16[128,16,96]{2,1,0}, s8[64]{0}) custom-call(%a, %b), \
custom_call_target="__cublas$lt$matmul", backend_config={"beta":1}
  %cc.3 = bf16[4,8]{1,0} custom-call(%a), custom_call_target="__cublas$gemm"
}
"""
TRITON = """
%fused.7 (p.0: bf16[8,4]) -> bf16[8,8] {
  %dot.1 = bf16[8,8]{1,0} dot(%p.0, %p.1)
  ROOT %add.2 = bf16[8,8]{1,0} add(%dot.1, %p.2)
}

%fused.8 (p.0: bf16[8,4]) -> bf16[8,8] {
  ROOT %dot.2 = bf16[8,8]{1,0} dot(%p.0, %p.1)
}

ENTRY %main {
  %add.9 = bf16[8,8]{1,0} add(%x, %y)
  %gemm_fusion.1 = bf16[8,8]{1,0} fusion(%a), kind=kCustom, calls=%fused.7, \
backend_config={"kind":"__triton_gemm"}
  ROOT %gemm_fusion.2 = bf16[8,8]{1,0} fusion(%a), kind=kCustom, calls=%fused.8, \
backend_config={"kind":"__triton_nested_gemm_fusion"}
}
"""


def test_what_xla_chose_is_read_off_the_program(lora_ops):
    assert lora_ops.read_gemms(CUBLAS) == [
        "cublaslt bf16[128,16,32] beta=0",
        "cublaslt bf16[128,16,96] beta=1",
        "cublas bf16[4,8] beta=0",
    ]
    assert lora_ops.read_gemms(TRITON) == [
        "triton bf16[8,8] add=1",
        "triton bf16[8,8] add=0",
    ]


def test_a_real_run(lora_ops, capsys):
    flags = ["--quick", "--cases=decode", "--repeats=2", "--seconds=0.001"]
    flags += ["--peak-size=64", "--implementations=mosaic_gpu"]
    assert lora_ops.main(flags) == 0
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    (case,) = result["cases"].values()
    for timed in case["timings"].values():
        assert set(timed) == {"gemm", "xla"}
        assert timed["xla"]["ratio_vs_xla"] == 1.0
        assert all(one["seconds"] > 0 for one in timed.values())
    assert case["errors"] == {"xla": 0.0}
    # Named, it does not run here, and is never replaced by another.
    assert "it is for cuda only" in case["skipped"]["mosaic_gpu"]
    assert result["peak_flops_per_s"] > 0
    assert {row["implementation"] for row in result["tuned"]} == {"xla"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--cases=gpt", "--cases=gpt must be in one of qwen2.5-7b/q/packed"),
        ("--quick --implementations=auto", "must be of reference, xla, dense, triton"),
    ],
)
def test_flags_that_cannot_be_are_refused(lora_ops, capsys, flags, message):
    assert lora_ops.main(flags.split()) == 2
    assert message in capsys.readouterr().err
