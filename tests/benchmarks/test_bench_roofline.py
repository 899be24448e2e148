"""A program's modelled time: the longest of three, by category; and scatters' order."""

import importlib
import json

import jax
import jax.numpy as jnp
import pytest


@pytest.fixture(scope="module")
def load(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module


@pytest.fixture(scope="module")
def roofline(load):
    return load("roofline")


@pytest.fixture(scope="module")
def kernel(load):
    made = dict(
        name="k",
        op="fusion",
        shape="f32[2]",
        times=1.0,
        flop=0.0,
        vector=0.0,
        bytes=0.0,
        dtype="",
        product="",
        names=(),
        moves=False,
    )
    return lambda **changes: load("hlo_cost").Kernel(**made | changes)


@pytest.fixture(scope="module")
def device(roofline):
    return roofline.Device("thing", flop=10.0, bytes=5.0, vector=2.0, launch=0.5)


# Time


@pytest.mark.parametrize(
    "work, seconds",
    [
        ({"flop": 100.0, "dtype": "bf16", "bytes": 5.0}, 10.5),
        ({"flop": 100.0, "dtype": "f8e4m3fn"}, 5.5),
        ({"flop": 100.0, "dtype": "f32"}, 20.5),
        ({"bytes": 20.0, "flop": 10.0, "dtype": "bf16"}, 4.5),
        ({"vector": 20.0, "bytes": 20.0}, 10.5),
        ({}, 0.5),
    ],
)
def test_a_kernel_takes_the_longest_of_its_work_and_a_launch(
    device, kernel, work, seconds
):
    assert device.seconds(kernel(**work)) == seconds


def test_an_h200_attains_what_the_floor_says(roofline, load):
    device = roofline.h200()
    least = load("floor").machine("NVIDIA H200", 989e12)
    assert (device.flop, device.bytes) == tuple(least)
    assert device.launch == 2e-6


# Categories


@pytest.mark.parametrize(
    "where, product, moves, want",
    [
        ("jvp(Decoder)/layers_3/q_proj/dot_general", True, False, "base matmuls"),
        ("jvp(Decoder)/layers_3/q_proj/lora/gtd,grd->gtr/dot", True, False, "LoRA"),
        ("transpose(jvp(Decoder))/layers_0/up_proj/lora/scatter", False, False, "LoRA"),
        ("jvp(Decoder)/layers_3/q_proj/dot_general", False, True, "layer copies"),
        ("jvp(Decoder)/layers_3/q_proj/add", False, False, "elementwise"),
        ("jvp(Decoder)/layers_3/attention/BTNH/dot_general", True, False, "attention"),
        ("jvp(Decoder)/layers_3/attention/transpose", False, True, "attention"),
        ("transpose(jvp(Decoder))/layers_1/post_norm/mul", False, False, "elementwise"),
        ("jvp(Decoder)/slice", False, True, "layer copies"),
        ("jvp(loss)/while/body/d,dv->v/dot_general", True, False, "head and loss"),
        ("while/body/head/dot_general", True, False, "head and loss"),
        ("while/body/optimizer/sub", False, False, "optimizer"),
        ("while/body/slots/gather", False, True, "optimizer"),
        ("while/body/draw/sort", False, False, "generation"),
        ("while/body/add", False, False, "other"),
        ("", False, True, "layer copies"),
        ("", False, False, "other"),
    ],
)
def test_categories_follow_the_programs_own_names(
    roofline, kernel, where, product, moves, want
):
    name = f"jit(run_block)/while/body/{where}" if where else ""
    made = kernel(
        product=name if product else "", names=(name,) if name else (), moves=moves
    )
    assert roofline.category(made) == want


def test_a_product_is_named_by_itself_whatever_is_fused_to_it(roofline, kernel):
    made = kernel(
        product="jit(f)/layers_0/down_proj/dot_general", names=("jit(f)/loss/add",)
    )
    assert roofline.category(made) == "base matmuls"


def test_what_says_nothing_is_named_by_what_is_in_it(roofline, kernel):
    made = kernel(names=("jit(f)/while/body/add", "jit(f)/while/body/optimizer/mul"))
    assert roofline.category(made) == "optimizer"


# A program that XLA compiled here


@pytest.fixture(scope="module")
def compiled():
    def run(x, w):
        with jax.named_scope("layers_0/q_proj"):
            return jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=7)[0]

    args = [jax.ShapeDtypeStruct(size, jnp.float32) for size in ((8, 32), (32, 32))]
    return jax.jit(run).lower(*args).compile().as_text()


def test_a_compiled_loop_is_counted_as_often_as_it_runs(roofline, compiled):
    made = roofline.report(compiled)
    assert made.total.flop == 7 * 2 * 8 * 32 * 32
    products = [one for one in made.kernels if one.flop]
    assert {one.times for one in products} == {7}
    # Each reads x and w and writes x.
    moved = sum(one.times * one.bytes for one in products)
    assert moved == 7 * 4 * (8 * 32 + 32 * 32 + 8 * 32)
    base = made.by_category()["base matmuls"]
    assert (base.flop, base.bytes) == (made.total.flop, moved)


def test_categories_add_up_to_the_whole(roofline, compiled):
    made = roofline.report(compiled)
    parts = made.by_category()
    assert tuple(parts) == roofline.CATEGORIES
    for field in ("seconds", "flop", "bytes", "kernels"):
        summed = sum(getattr(cost, field) for cost in parts.values())
        assert summed == pytest.approx(getattr(made.total, field))


def test_the_command_prints_a_modelled_table(roofline, compiled, tmp_path, capsys):
    file = tmp_path / "program.txt"
    file.write_text(compiled)
    assert roofline.main([str(file), "--top", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("base matmuls") for line in lines)
    assert any("modelled for one NVIDIA H200, not measured" in line for line in lines)
    result = json.loads(lines[-1])
    assert result["modelled"] is True
    assert result["flop"] == 7 * 2 * 8 * 32 * 32
    assert result["unordered_scatters"] == []


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--loop", "while"], "--loop=while: must be PATTERN=N"),
        ([], "must have an ENTRY computation"),
    ],
)
def test_what_cannot_be_modelled_is_one_line(
    roofline, tmp_path, capsys, flags, message
):
    file = tmp_path / "program.txt"
    file.write_text("nothing")
    assert roofline.main([str(file), *flags]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


# Order


def scatter(flags="", combine="add", dtype="f32", updates="4,16", window="1"):
    """A program with one scatter inside a fusion, as XLA prints it."""
    root = (
        f"ROOT %c = {dtype}[] {combine}(%a, %b)"
        if combine
        else f"ROOT %b = {dtype}[] parameter(1)"
    )
    second = f"  %b = {dtype}[] parameter(1)\n" if combine else ""
    return f"""\
%combine (a: {dtype}[], b: {dtype}[]) -> {dtype}[] {{
  %a = {dtype}[] parameter(0)
{second}  {root}
}}

%fused (s: {dtype}[64,16], i: s32[4,1], u: {dtype}[{updates}]) -> {dtype}[64,16] {{
  %s = {dtype}[64,16]{{1,0}} parameter(0)
  %i = s32[4,1]{{1,0}} parameter(1)
  %u = {dtype}[{updates}]{{1,0}} parameter(2)
  ROOT %r.1 = {dtype}[64,16]{{1,0}} scatter(%s, %i, %u), \
update_window_dims={{{window}}}, index_vector_dim=1,{flags} to_apply=%combine, \
metadata={{op_name="jit(f)/scatter-add"}}
}}

ENTRY %main (s: {dtype}[64,16]) -> {dtype}[64,16] {{
  %s = {dtype}[64,16]{{1,0}} parameter(0)
  ROOT %out = {dtype}[64,16]{{1,0}} fusion(%s, %s, %s), calls=%fused
}}
"""


def test_a_scatter_add_in_no_order_is_listed(roofline):
    assert roofline.unordered_scatters(scatter()) == [
        "%r.1 adds to f32[64,16] in %fused: jit(f)/scatter-add"
    ]
    # Of sorted indices a run of equal ones is still cut over a GPU's threads.
    assert roofline.unordered_scatters(scatter(" indices_are_sorted=true,"))
    assert roofline.unordered_scatters(scatter(dtype="bf16"))
    (line,) = roofline.unordered_scatters(scatter(combine=""))
    assert line.startswith("%r.1 sets f32[64,16]")


@pytest.mark.parametrize(
    "ordered",
    [
        {"flags": " unique_indices=true,"},
        {"flags": " indices_are_sorted=true, unique_indices=true,"},
        {"combine": "maximum"},
        {"dtype": "s32"},
        {"updates": "1,16"},
    ],
    ids=str,
)
def test_a_scatter_whose_order_does_not_matter_is_not(roofline, ordered):
    assert roofline.unordered_scatters(scatter(**ordered)) == []


def test_nothing_is_listed_without_a_scatter(roofline, compiled):
    assert roofline.unordered_scatters(compiled) == []
