"""What the low-rank matmul may cost, read off its jaxpr, and the cases it is for."""

import collections
import functools
import math

import jax
import jax.numpy as jnp
import pytest

from seal_kernels.lora_matmul import api, cases, xla

# Sizes without a common factor, so that a size tells where an array comes from.
A, T, D, F, R = 11, 7, 13, 17, 2
TILE, S = 4, 97
G = 11


@pytest.fixture(autouse=True)
def products_are_matmuls(monkeypatch):
    """Small ones too: what a CPU writes out as sums is no part of these counts."""
    monkeypatch.setattr(xla, "MOST_TERMS", 0)


def equations(jaxpr):
    """Every equation of a jaxpr and of all jaxprs inside it, with repeats."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(
            tuple(eqn.params.values()),
            is_leaf=lambda leaf: hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr"),
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def dots(jaxpr):
    """(lhs, rhs, out, floating-point operations) of every matmul."""
    for eqn in equations(jaxpr):
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            lhs, rhs, out = (v.aval for v in (*eqn.invars, *eqn.outvars))
            depth = math.prod(lhs.shape[axis] for axis in contracted)
            yield lhs, rhs, out, 2 * depth * out.size


def findings(function, *operands, w, rows, most):
    """What is wrong with the cost of a forward and backward pass.

    Args:
      function: of `operands`, which it is traced with.
      w: the shape of the base weight.
      rows: rows of x.
      most: no array may be larger than this.
    """
    jaxpr = jax.make_jaxpr(function)(*operands).jaxpr
    width, features = w
    found = collections.Counter()
    for eqn in equations(jaxpr):
        if "ragged" in eqn.primitive.name:
            found["ragged"] += 1
        for aval in (v.aval for v in eqn.outvars):
            if aval.size > most:
                found["size"] += 1
            upcasts = (width * features, rows * features, rows * width)
            if aval.dtype == jnp.float32 and aval.size in upcasts:
                found["upcast"] += 1
    on_base = 0
    for lhs, rhs, out, _ in dots(jaxpr):
        on_base += w in (lhs.shape, rhs.shape)
        found["dw"] += sorted(out.shape) == sorted(w)
    found["base"] = abs(on_base - 2)
    return {name for name, count in found.items() if count}


def dense_operands(dtype):
    shapes = (A, T, D), (D, F), (A, R, D), (A, R, F)
    return [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]


def packed_operands(dtype):
    shapes = (G * TILE, D), (D, F), (S, R, D), (S, R, F)
    slots = jax.ShapeDtypeStruct((G,), jnp.int32)
    return [*(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes), slots]


def passes(op, by=(0, 2, 3)):
    """Forward and backward: the value, and gradients for a given one of the value."""

    def run(*args):
        def chosen(*few):
            full = list(args)
            for i, value in zip(by, few, strict=True):
                full[i] = value
            return op(*full)

        y, pull = jax.vjp(chosen, *(args[i] for i in by))
        return y, pull(jnp.ones_like(y))

    return run


def dense_findings(op, dtype=jnp.bfloat16, by=(0, 2, 3)):
    # Rows are the largest things there are; A x D x F is 2431.
    most = A * T * F
    return findings(
        passes(jax.vmap(op, (0, None, 0, 0)), by),
        *dense_operands(dtype),
        w=(D, F),
        rows=A * T,
        most=most,
    )


def packed_findings(op, dtype=jnp.bfloat16):
    # The gradients themselves; S x M is 4268.
    return findings(
        passes(op),
        *packed_operands(dtype),
        w=(D, F),
        rows=G * TILE,
        most=S * R * F,
    )


def test_vmap_leaves_the_base_alone():
    assert dense_findings(api.lora_matmul) == set()


def test_packed_costs_its_tiles():
    # "auto" holds what each platform would run, and so more than one of them.
    op = lambda *args: api.lora_matmul_packed(*args, implementation="xla")
    assert packed_findings(op) == set()


def test_nested_vmap_leaves_the_base_alone():
    op = jax.vmap(jax.vmap(api.lora_matmul, (0, None, None, None)), (0, None, 0, 0))
    x, w, a, b = dense_operands(jnp.bfloat16)
    x = jax.ShapeDtypeStruct((A, 3, T, D), jnp.bfloat16)
    most = A * 3 * T * F
    found = findings(passes(op), x, w, a, b, w=(D, F), rows=A * 3 * T, most=most)
    assert found == set()


def test_rows_of_one_adapter_share_it():
    rows_alone = jax.vmap(api.lora_matmul, (0, None, None, None))
    x, w, a, b = dense_operands(jnp.bfloat16)
    a, b = (jax.ShapeDtypeStruct(z.shape[1:], z.dtype) for z in (a, b))
    jaxpr = jax.make_jaxpr(rows_alone)(x, w, a, b).jaxpr
    sizes = {v.aval.size for eqn in equations(jaxpr) for v in eqn.outvars}
    assert A * T * F in sizes
    assert not sizes & {A * R * D, A * R * F}


def naive(x, w, a, b):
    return x @ w + (x @ a.T) @ b


def wide(x, w, a, b):
    dot = lambda x, y: jnp.matmul(x, y, preferred_element_type=jnp.float32)
    return (dot(x, w) + dot(dot(x, a.T), b)).astype(x.dtype)


def copied(x, w, a, b):
    return x @ (w + a.T @ b)


def masked(x, w, a, b, slots):
    own_MS = jnp.repeat(slots, TILE)[:, None] == jnp.arange(S)[None]
    own_MSR = jnp.repeat(own_MS[..., None].astype(x.dtype), R, -1)
    u_MSR = jnp.einsum("md,srd->msr", x, a) * own_MSR
    return x @ w + jnp.einsum("msr,srf->mf", u_MSR, b)


def ragged(x, w, a, b, slots):
    sizes_S = jnp.bincount(slots, length=S) * TILE
    u_MR = jax.lax.ragged_dot(x, a.swapaxes(1, 2), sizes_S)
    return x @ w + jax.lax.ragged_dot(u_MR, b, sizes_S)


def test_the_reader_of_jaxprs_sees_each_trap():
    assert "dw" in dense_findings(naive, by=(0, 1, 2, 3))
    assert "upcast" in dense_findings(wide)
    assert {"size", "base"} <= dense_findings(copied)
    assert "size" in packed_findings(masked)
    assert "ragged" in packed_findings(ragged)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_matmuls_are_those_of_the_case_and_no_more(dtype):
    # Forward and backward: nothing is computed twice, no dW, no product of all pairs.
    case = cases.Case("small", M=G * TILE, D=D, F=F, R=R, S=S, tile=TILE, dtype=dtype)
    operands = jax.eval_shape(lambda: cases.operands(case, jax.random.key(0)))
    op = functools.partial(api.lora_matmul_packed, implementation="xla")
    forward = jax.make_jaxpr(op)(*operands)
    assert sum(cost for *_, cost in dots(forward.jaxpr)) == case.forward_flops()
    both = jax.make_jaxpr(passes(op))(*operands)
    want = case.forward_flops() + case.backward_flops()
    # But for the tiles' sum, a matmul with zeros and ones where a scatter has no order.
    sums = [cost for lhs, _, _, cost in dots(both.jaxpr) if lhs.shape == (S, G)]
    assert len(sums) == 2
    assert sum(cost for *_, cost in dots(both.jaxpr)) - sum(sums) == want


@pytest.mark.parametrize("name", cases.CASES)
def test_cases_are_calls_that_fit(name):
    case = cases.CASES[name]
    assert name == case.name and case.M % case.tile == 0
    operands = jax.eval_shape(lambda: cases.operands(case, jax.random.key(0)))
    out = jax.eval_shape(api.lora_matmul_packed, *operands)
    assert (out.shape, out.dtype.name) == ((case.M, case.F), case.dtype)


@pytest.mark.parametrize(
    "model, layers, billions",
    # Parameters without embeddings, as the model cards have them.
    [("qwen2.5-7b", 28, 6.53), ("qwen2.5-0.5b", 24, 0.36), ("llama-3.2-1b", 16, 0.97)],
)
def test_widths_add_up_to_the_models(model, layers, billions):
    q, k, gate, down = (
        math.prod(cases.LINEARS[model][name]) for name in ("q", "k", "gate", "down")
    )
    total = layers * (2 * q + 2 * k + 2 * gate + down)
    assert round(total / 1e9, 2) == billions


@pytest.mark.parametrize("tile, slots", [(1, 64), (4, 16), (16, 4), (64, 1)])
def test_operands_give_every_adapter_a_run_of_tiles(tile, slots):
    case = cases.Case("small", M=64, D=8, F=4, R=2, S=slots, tile=tile)
    x, w, a, b, slots_G = cases.operands(case, jax.random.key(1))
    seen = slots_G.tolist()
    assert sorted(set(seen)) == list(range(case.S)) and len(seen) == 64 // tile
    runs = [s for i, s in enumerate(seen) if i == 0 or seen[i - 1] != s]
    assert len(runs) == case.S
    assert (x.dtype, w.dtype, a.dtype, b.dtype) == ("bfloat16",) * 2 + ("float32",) * 2
    y = api.lora_matmul_packed(x, w, a, b, slots_G).astype(jnp.float32)
    # Unit variance from the base, and from the adapter.
    assert 1 < float(jnp.std(y)) < 2
