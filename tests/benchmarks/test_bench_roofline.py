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
        places=(),
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


STEP = "packed.py:run_block > packed.py:step_all"
DECODER = f"{STEP} > packed.py:loss > decoder.py:hidden > decoder.py:Block.__call__"
LINEAR = f"{DECODER} > decoder.py:Linear.__call__"
UNDER_LORA = f"{LINEAR} > api.py:lora_matmul_packed"
LOSS = f"{STEP} > packed.py:loss > cross_entropy.py:_forward > cross_entropy.py:_map"


@pytest.mark.parametrize(
    "name, frames, want",
    [
        ("jvp(Decoder)/layers_3/o_proj/dot_general", LINEAR, "base matmuls"),
        ("jvp(Decoder)/layers_3/q_proj/dot_general", UNDER_LORA, "base matmuls"),
        ("layers_0/q_proj/mf,df->md/dot_general", UNDER_LORA, "base matmuls"),
        (
            "layers_0/up_proj/cond/branch_0_fun/mf,df->md/dot_general",
            UNDER_LORA,
            "base matmuls",
        ),
        ("layers_0/up_proj/cond/branch_0_fun/mk,kx->mx/dot", UNDER_LORA, "LoRA"),
        ("layers_3/q_proj/gtd,grd->gtr/dot_general", UNDER_LORA, "LoRA"),
        ("layers_3/vmap(BTNH,BSNH->BNTS)/dot", f"{DECODER} > a.py:attend", "attention"),
        ("jvp()/while/body/vmap(d,dv->v)/dot_general", LOSS, "head and loss"),
        ("while/body/...d,dv->...v/dot", "decoder.py:logits", "head and loss"),
        ("while/body/dot_general", "", "other"),
    ],
)
def test_a_product_belongs_where_the_program_has_it(
    roofline, kernel, name, frames, want
):
    place = f"jit(run_block)/while/body/{name} < {frames}"
    # Whatever is fused to it.
    made = kernel(product=place, places=("jit(f)/add < inner.py:update",))
    assert roofline.category(made) == want


@pytest.mark.parametrize(
    "name, frames, moves, want",
    [
        ("transpose(jvp(Decoder))/layers_0/up_proj/scatter", UNDER_LORA, False, "LoRA"),
        ("layers_3/q_proj/dot_general", UNDER_LORA, True, "layer copies"),
        ("layers_3/q_proj/add", LINEAR, False, "elementwise"),
        (
            "layers_1/post_norm/mul",
            f"{DECODER} > decoder.py:norm",
            False,
            "elementwise",
        ),
        ("layers_3/transpose", f"{DECODER} > decoder.py:attend", True, "attention"),
        ("layers_3/copy", f"{DECODER} > attention.py:attention", True, "attention"),
        ("jvp(Decoder)/slice", DECODER, True, "layer copies"),
        ("jvp()/exp", LOSS, False, "head and loss"),
        ("vmap()/sub", f"{STEP} > inner.py:update", False, "optimizer"),
        ("scatter", f"{STEP} > updates.py:put", False, "optimizer"),
        ("while/body/sort", "sample.py:decode > sample.py:draw", False, "generation"),
        ("while/body/add", "packed.py:run_block", False, "other"),
        ("", "", True, "layer copies"),
        ("", "", False, "other"),
    ],
)
def test_all_else_belongs_where_its_name_says(
    roofline, kernel, name, frames, moves, want
):
    place = f"jit(run_block)/while/body/{name} < {frames}" if name else ""
    made = kernel(places=(place,) if place else (), moves=moves)
    assert roofline.category(made) == want


def test_what_says_nothing_is_named_by_what_is_in_it(roofline, kernel):
    made = kernel(places=("jit(f)/while/body/add", "jit(f)/mul < inner.py:update"))
    assert roofline.category(made) == "optimizer"


# A program that XLA compiled here


@pytest.fixture(scope="module")
def compiled():
    def body(x, w):
        with jax.named_scope("q_proj"):
            return x @ w

    def run(x, w):
        return jax.lax.scan(lambda x, _: (body(x, w), None), x, None, length=7)[0]

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
