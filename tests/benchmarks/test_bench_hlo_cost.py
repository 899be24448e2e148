"""What kernels are charged: FLOP and bytes by hand, and how often they run."""

import importlib

import pytest


@pytest.fixture(scope="module")
def load(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module


@pytest.fixture(scope="module")
def cost(load):
    return load("hlo_cost")


@pytest.fixture(scope="module")
def charged(load, cost):
    """The kernels of a program with these computations before its entry."""

    def charge(entry, *others, told=None):
        parameters = ", ".join(f"p{i}: f32[]" for i in range(3))
        body = "\n".join(f"  {line}" for line in entry)
        text = "".join(
            f"%{name} (p: f32[]) -> f32[] {{\n"
            + "\n".join(f"  {line}" for line in lines)
            + "\n}\n\n"
            for name, lines in others
        )
        text += f"ENTRY %main ({parameters}) -> f32[] {{\n{body}\n}}\n"
        program = load("hlo_text").parse(text)
        return cost.kernels(program, told or cost.NOTHING)

    return charge


X = "%x = bf16[8,16]{1,0} parameter(0)"
W = "%w = bf16[16,32]{1,0} parameter(1)"
I = "%i = s32[] parameter(2)"
DOT = (
    "%d = f32[8,32]{1,0} dot(%x, %w), lhs_contracting_dims={1}, "
    'rhs_contracting_dims={0}, metadata={op_name="f/q_proj/dot_general"}'
)


def test_a_dot_is_two_for_each_product_and_moves_its_operands(charged):
    (one,) = charged([X, W, f"ROOT {DOT}"])
    assert one.flop == 2 * 8 * 32 * 16
    assert one.bytes == 2 * 8 * 16 + 2 * 16 * 32 + 4 * 8 * 32
    assert (one.dtype, one.product, one.vector) == ("bf16", "f/q_proj/dot_general", 0)
    assert not one.moves


def test_a_batched_dot_sums_over_all_its_contracted_axes(charged):
    x = "%x = f32[3,8,16,4]{3,2,1,0} parameter(0)"
    w = "%w = f32[3,16,4,5]{3,2,1,0} parameter(1)"
    dot = (
        "ROOT %d = f32[3,8,5]{2,1,0} dot(%x, %w), lhs_batch_dims={0}, "
        "lhs_contracting_dims={2,3}, rhs_batch_dims={0}, rhs_contracting_dims={1,2}"
    )
    (one,) = charged([x, w, dot])
    assert one.flop == 2 * 3 * 8 * 5 * 16 * 4


def test_cublas_is_counted_and_its_workspace_is_not(charged):
    call = (
        "ROOT %d = (bf16[8,32]{1,0}, s8[4096]{0}) custom-call(%x, %w), "
        'custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config"'
        ':{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],'
        '"rhs_contracting_dimensions":["0"]}}}'
    )
    (one,) = charged([X, W, call])
    assert one.flop == 2 * 8 * 32 * 16
    assert one.bytes == 2 * (8 * 16 + 16 * 32 + 8 * 32)


def test_a_convolution_sums_over_the_kernel_but_its_outputs(charged):
    x = "%x = f32[1,8,16]{2,1,0} parameter(0)"
    w = "%w = f32[3,16,32]{2,1,0} parameter(1)"
    conv = (
        "ROOT %d = f32[1,8,32]{2,1,0} convolution(%x, %w), window={size=3}, "
        "dim_labels=b0f_0io->b0f"
    )
    (one,) = charged([x, w, conv])
    assert one.flop == 2 * 8 * 32 * 3 * 16


def test_what_is_fused_counts_and_only_its_ends_move(charged):
    fused = (
        "fused",
        [
            "%a = bf16[8,16]{1,0} parameter(0)",
            "%b = bf16[16,32]{1,0} parameter(1)",
            DOT.replace("%x, %w", "%a, %b"),
            "ROOT %e = f32[8,32]{1,0} exponential(%d)",
        ],
    )
    (one,) = charged(
        [X, W, "ROOT %f = f32[8,32]{1,0} fusion(%x, %w), kind=kLoop, calls=%fused"],
        fused,
    )
    assert one.flop == 2 * 8 * 32 * 16
    assert one.vector == 4 * 8 * 32
    assert one.bytes == 2 * 8 * 16 + 2 * 16 * 32 + 4 * 8 * 32
    assert one.places == ("f/q_proj/dot_general",)


STACK = "%s = bf16[64,8,16]{2,1,0} parameter(0)"
SLICE = (
    "%t = bf16[1,8,16]{2,1,0} dynamic-slice(%s, %i, %i, %i), "
    "dynamic_slice_sizes={1,8,16}"
)


def test_of_a_stack_that_is_sliced_only_the_slice_is_read(charged):
    fused = (
        "fused",
        [
            STACK,
            "%i = s32[] parameter(1)",
            SLICE,
            "ROOT %n = bf16[1,8,16]{2,1,0} negate(%t)",
        ],
    )
    entry = [STACK, I]
    call = "ROOT %f = bf16[1,8,16]{2,1,0} fusion(%s, %i), kind=kLoop, calls=%fused"
    (one,) = charged([*entry, call], fused)
    slice_bytes = 2 * 8 * 16
    assert one.bytes == pytest.approx(2 * slice_bytes, abs=4)
    (bare,) = charged([*entry, f"ROOT {SLICE}"])
    assert bare.bytes == 2 * slice_bytes
    assert bare.moves and not one.moves


def test_an_update_in_place_moves_what_is_new(charged):
    update = "ROOT %u = bf16[64,8,16]{2,1,0} dynamic-update-slice(%s, %n, %i, %i, %i)"
    new = "%n = bf16[1,8,16]{2,1,0} parameter(1)"
    fused = ("fused", [STACK, new, I, update])
    call = "ROOT %f = bf16[64,8,16]{2,1,0} fusion(%s, %n, %i), kind=kLoop, calls=%fused"
    for made in (
        charged([STACK, new, I, call], fused),
        charged([STACK, new, I, update]),
    ):
        assert made[0].bytes == pytest.approx(2 * 2 * 8 * 16, abs=4)


@pytest.mark.parametrize("assigns", [True, False])
def test_a_scatter_reads_what_it_adds_to(charged, assigns):
    combine = (
        "combine",
        [
            "%a = f32[] parameter(0)",
            "%b = f32[] parameter(1)",
            "ROOT %c = f32[] add(%a, %b)",
        ],
    )
    if assigns:
        combine[1][1:] = ["ROOT %b = f32[] parameter(1)"]
    entry = [
        "%s = f32[64,16]{1,0} parameter(0)",
        "%i = s32[4,1]{1,0} parameter(1)",
        "%u = f32[4,16]{1,0} parameter(2)",
        "ROOT %r = f32[64,16]{1,0} scatter(%s, %i, %u), update_window_dims={1}, "
        "to_apply=%combine",
    ]
    (one,) = charged(entry, combine)
    updates, indices = 4 * 4 * 16, 4 * 4
    assert one.bytes == indices + updates * (2 if assigns else 3)


def test_a_sort_passes_over_memory_more_than_once(charged, cost):
    entry = [
        "%x = f32[2,8192]{1,0} parameter(0)",
        "ROOT %s = f32[2,8192]{1,0} sort(%x), dimensions={1}, to_apply=%less",
    ]
    (one,) = charged(entry)
    # Stages 12 and 13 of 8192 elements leave a tile of 2048: 2 and 3 passes more.
    assert cost.sort_passes(8192, tile=2048) == 1 + 2 + 3
    assert one.bytes == 6 * 2 * 4 * 2 * 8192
    assert cost.sort_passes(100, tile=2048) == 1


def test_loops_multiply_and_stand_inside_each_other(charged, cost):
    def loop(name, body, trips=""):
        return (
            f"%{name} = (s32[]) while(%t), condition=%c, body=%{body}, "
            f'metadata={{op_name="jit(f)/{name}"}}{trips}'
        )

    known = ', backend_config={"known_trip_count":{"n":"5"}}'
    inner = ("inner", [X, W, f"ROOT {DOT}"])
    outer = (
        "outer",
        ["%t = (s32[]) parameter(0)", f"ROOT {loop('in', 'inner', known)}"],
    )
    entry = ["%t = (s32[]) parameter(0)", f"ROOT {loop('out', 'outer')}"]
    told = cost.Told(loops={"/out$": 3})
    (one,) = charged(entry, inner, outer, told=told)
    assert one.times == 15
    with pytest.raises(ValueError, match=r"loop %out \(jit\(f\)/out\) must have"):
        charged(entry, inner, outer)


def test_of_branches_the_costliest_counts_unless_told(charged, cost):
    small = ("small", ["%a = f32[4]{0} parameter(0)", "ROOT %n = f32[4]{0} negate(%a)"])
    large = ("large", ["%a = f32[9]{0} parameter(0)", "ROOT %n = f32[9]{0} negate(%a)"])
    entry = [
        I,
        "ROOT %c = f32[] conditional(%i, %i, %i), "
        "branch_computations={%small, %large}, "
        'metadata={op_name="jit(f)/cond"}',
    ]
    (one,) = charged(entry, small, large)
    assert (one.shape, one.times) == ("f32[9]", 1)
    told = cost.Told(branches={"/cond$": (0.75, 0.25)})
    both = charged(entry, small, large, told=told)
    assert [(k.shape, k.times) for k in both] == [("f32[4]", 0.75), ("f32[9]", 0.25)]


def test_a_foreign_kernel_does_what_is_told_of_it(charged, cost):
    call = (
        "ROOT %d = f32[8,32]{1,0} custom-call(%x, %w), "
        'custom_call_target="mosaic_gpu_v2", metadata={op_name="f/attention/fwd"}'
    )
    (one,) = charged([X, W, call])
    assert one.flop == 0
    known = cost.Foreign(flop=123.0, read=0.25)
    told = cost.Told(foreign={r"mosaic.*attention/fwd -> f32\[8,32\]$": known})
    (other,) = charged([X, W, call], told=told)
    assert (other.flop, other.foreign, one.foreign) == (123.0, True, False)
    read = 2 * 8 * 16 + 2 * 16 * 32
    assert one.bytes - other.bytes == 0.75 * read
    # Of one operand alone, and of what it writes.
    known = cost.Foreign(flop=0.0, read={1: 0.5}, written=0.25)
    (third,) = charged([X, W, call], told=cost.Told(foreign={"fwd": known}))
    assert one.bytes - third.bytes == 0.5 * 2 * 16 * 32 + 0.75 * 4 * 8 * 32
    not_it = cost.Told(foreign={"attention/fwd -> bf16": known})
    assert charged([X, W, call], told=not_it)[0].flop == 0


def test_what_needs_no_kernel_is_free(charged):
    entry = [
        X,
        "%b = bf16[16,8]{0,1} bitcast(%x)",
        "%t = (bf16[16,8]{0,1}) tuple(%b)",
        "%c = s32[] constant(3)",
        "ROOT %g = bf16[16,8]{0,1} get-tuple-element(%t), index=0",
    ]
    assert charged(entry) == []
