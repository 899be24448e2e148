"""The doors to attention: decoding, what is refused, and which implementation runs."""

import sys
import types

import attention_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seal_kernels.attention import api, dispatch, guard, xla

KERNELS = {"tokamax": "cuda", "triton": "cuda", "splash": "tpu"}


def cache(b=4, n=6, heads=2, slots=200, h=8, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    shapes = (b, n, h), (b, heads, slots, h), (b, heads, slots, h)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def decoded(q, k, v, length):
    """By the oracle: the last query of a row sees as many keys as are filled."""
    q, k, v = q[:, None], jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2)
    return oracle.plain(q, k, v, jnp.zeros_like(length)[:, None], length[:, None])[:, 0]


@pytest.mark.parametrize("implementation", ["auto", "xla", "reference"])
@pytest.mark.parametrize("slots", [100, 200])
def test_decode_is_the_formula(implementation, slots):
    """With 200 slots the last of its blocks is not whole."""
    q, k, v = cache(slots=slots)
    run = jax.jit(lambda *args: api.decode(*args, implementation=implementation))
    for lengths in ([1, 0, 64, 65], [slots, slots - 1, 3, 0], [0, 0, 0, 0]):
        length = jnp.array(lengths, jnp.int32)
        got = run(q, k, v, length)
        oracle.assert_near([got], [oracle.in_float64(decoded, q, k, v, length)])
        assert not np.asarray(got)[length == 0].any()


def test_decode_reads_no_more_than_is_filled():
    """A block past the fullest row is not looked at: what lies there is NaN."""
    q, k, v = cache()
    length = jnp.array([3, 60, 64, 1], jnp.int32)
    k, v = (x.at[:, :, xla.ON_CPU.block :].set(jnp.nan) for x in (k, v))
    assert np.isfinite(jax.jit(api.decode)(q, k, v, length)).all()


def test_decode_in_bfloat16_and_under_vmap():
    q, k, v = cache(dtype=jnp.bfloat16)
    length = jnp.array([3, 60, 200, 1], jnp.int32)
    got = jax.vmap(api.decode, (0, None, None, None))(jnp.stack([q, -q]), k, v, length)
    assert got.dtype == jnp.bfloat16
    for one, sign in zip(got, (1, -1), strict=True):
        want = oracle.in_float64(decoded, sign * q, k, v, length)
        oracle.assert_near([one], [want], rtol=2 * 2.0**-8)


def operands(dtype=jnp.float32, t=140):
    q, k, v, _ = oracle.drawn(0, (1, t), 4, 2, 8, dtype)
    return q, k, v, *oracle.ranges([[(t, 0)]], t)


def both(implementation):
    op = lambda *args: api.attention(*args, implementation=implementation)
    return lambda *args: oracle.value_and_grads(op)(*args, args[0])


def lowered(function, platform, *args):
    traced = jax.jit(function).trace(*(args or operands()))
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_asked_for_elsewhere_says_why(name):
    q, k, v, first, end = operands()
    for run in (
        lambda: both(name)(q, k, v, first, end),
        lambda: jax.jit(both(name))(q, k, v, first, end),
        lambda: api.decode(*cache(), jnp.ones(4, jnp.int32), implementation=name),
    ):
        with pytest.raises(NotImplementedError) as caught:
            run()
        message = str(caught.value)
        assert "\n" not in message
        for part in (name, f"for {KERNELS[name]} only", "use 'auto' or 'xla'"):
            assert part in message


def fake_kernel(refuses):
    """An implementation that can be told by an operation XLA's does not have."""

    def marked(function):
        def run(*operands):
            if refuses:
                raise NotImplementedError("rows of 140 are odd for it")
            out = function(*operands)
            first, *rest = out if isinstance(out, tuple) else (out,)
            first = first + 0 * jnp.cbrt(first)
            return (first, *rest) if isinstance(out, tuple) else first

        return run

    passes = {name: marked(getattr(xla, name)) for name in ("forward", "backward")}
    return types.SimpleNamespace(**passes, decode=marked(xla.decode))


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_what_its_platform_gets(name, monkeypatch):
    monkeypatch.setattr(dispatch, "_module", lambda name: fake_kernel(refuses=False))
    monkeypatch.setattr(dispatch, "expects", lambda platform: True)
    for implementation in (name, "auto"):
        text = lowered(both(implementation), KERNELS[name])
        assert text.count("cbrt") >= 2
        # The other platforms' branch is gone, not left to be chosen at run time.
        plain = lowered(both("xla"), KERNELS[name])
        assert text.count("dot_general") == plain.count("dot_general") > 0
    assert "cbrt" not in lowered(both("auto"), "cpu")
    assert "cbrt" not in lowered(both("xla"), KERNELS[name])


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_that_refuses_a_shape(name, monkeypatch):
    """`auto` is XLA then, and a name that was asked for an error."""
    monkeypatch.setattr(dispatch, "_module", lambda name: fake_kernel(refuses=True))
    monkeypatch.setattr(dispatch, "expects", lambda platform: True)
    platform = KERNELS[name]
    text, plain = (lowered(both(name), platform) for name in ("auto", "xla"))
    assert text.count("dot_general") == plain.count("dot_general") > 0
    with pytest.raises(NotImplementedError, match="140 are odd for it; use 'auto'"):
        lowered(both(name), platform)


@pytest.mark.parametrize(
    ("what", "refusing", "taken"),
    [
        ("forward", (), "tokamax"),
        ("forward", ("tokamax",), "triton"),
        ("backward", (), "triton"),
        ("backward", ("triton",), "tokamax"),
        ("decode", ("tokamax",), None),
    ],
)
def test_auto_takes_the_first_that_does_it(what, refusing, taken, monkeypatch):
    asked = []

    def module(name):
        asked.append(name)
        return fake_kernel(refuses=name in refusing)

    monkeypatch.setattr(dispatch, "_module", module)
    monkeypatch.setattr(dispatch, "expects", lambda platform: platform == "cuda")
    q, k, v, first, end = operands()
    args = {
        "forward": (q, k, v, first, end),
        "backward": (q, q, k, v, q, jnp.zeros((1, 4, 140)), first, end),
        "decode": (*cache(), jnp.ones(4, jnp.int32)),
    }[what]
    text = lowered(lambda *args: getattr(dispatch, what)("auto", *args), "cuda", *args)
    assert asked[-1] == (taken or refusing[-1])
    assert ("cbrt" in text) == bool(taken)


def test_auto_traces_no_kernel_for_another_platform(monkeypatch):
    """A run on a CPU imports neither Pallas nor tokamax for it."""
    monkeypatch.setattr(dispatch, "_module", lambda name: pytest.fail(name))
    jax.make_jaxpr(both("auto"))(*operands())


def test_without_tokamax_it_is_refused(monkeypatch):
    """As where it is not installed."""
    from seal_kernels.attention import tokamax_gpu

    monkeypatch.setitem(sys.modules, "tokamax", None)
    tokamax_gpu._module.cache_clear()
    args = operands(jnp.bfloat16)
    with pytest.raises(NotImplementedError, match=r"cannot be imp.* seal-jax\[c"):
        tokamax_gpu.forward(*args)
    with pytest.raises(NotImplementedError, match="float32 is neither bf"):
        tokamax_gpu.forward(*operands(jnp.float32))
    tokamax_gpu._module.cache_clear()


def test_triton_refuses_what_it_has_no_room_for(monkeypatch):
    """Before it is lowered, where nobody could take something else."""
    from seal_kernels import triton
    from seal_kernels.attention import triton_gpu

    def refusal(capability, head, dtype=jnp.bfloat16):
        info = types.SimpleNamespace(compute_capability=capability)
        fake = types.SimpleNamespace(get_gpu_info=lambda: info)
        monkeypatch.setattr(triton, "_triton", lambda: fake)
        try:
            triton_gpu._check(jnp.zeros((1, 1, 1, head), dtype), False)
        except NotImplementedError as error:
            return str(error)
        return ""

    assert "75 is before Ampere" in refusal(75, 64)
    assert not refusal(90, 256) and not refusal(80, 128, jnp.float32)
    assert not refusal(86, 128) and not refusal(89, 64, jnp.float32)
    assert "1024 bytes are wider than the 512" in refusal(90, 200, jnp.float32)
    assert "512 bytes are wider than the 256" in refusal(86, 128, jnp.float32)


def test_without_triton_it_is_refused(monkeypatch):
    """A later jax may have none."""
    from seal_kernels import triton
    from seal_kernels.attention import triton_gpu

    monkeypatch.setitem(sys.modules, "jax.experimental.pallas.triton", None)
    triton._triton.cache_clear()
    with pytest.raises(NotImplementedError, match="this jax has no Triton"):
        triton_gpu.forward(*operands())
    triton._triton.cache_clear()


def test_tokamax_is_for_hopper_and_later(monkeypatch):
    from seal_kernels.attention import tokamax_gpu

    ampere = types.SimpleNamespace(compute_capability="8.0", platform="gpu")
    monkeypatch.setattr(tokamax_gpu.backend, "get_default_device", lambda: ampere)
    with pytest.raises(NotImplementedError, match=r"8\.0 is before Hopper's"):
        tokamax_gpu.forward(*operands(jnp.bfloat16))


WRONG = {
    "'flash' must be one of auto, reference, xla": {"implementation": "flash"},
    "must be [B, T, N, H]": {"q": (2, 5, 8)},
    "twice [B, T, K, H]": {"v": (2, 5, 1, 8)},
    "must have one B, T and H": {"q": (2, 6, 4, 8)},
    "the 3 heads of q be a multiple of the 2 of k": {"q": (2, 5, 3, 8)},
    "of one float dtype": {"k": jnp.zeros((2, 5, 2, 8), jnp.bfloat16)},
    "first int32[2, 4] must be integers [B, T] = [2, 5]": {
        "first": jnp.zeros((2, 4), jnp.int32)
    },
    "end float32[2, 5] must be integers": {"end": jnp.zeros((2, 5))},
}


@pytest.mark.parametrize("message", WRONG)
def test_calls_that_do_not_fit_are_refused(message):
    bound = jnp.zeros((2, 5), jnp.int32)
    args = {"q": (2, 5, 4, 8), "k": (2, 5, 2, 8), "v": (2, 5, 2, 8)}
    args |= {"first": bound, "end": bound} | WRONG[message]
    args = {
        name: jnp.zeros(arg) if isinstance(arg, tuple) else arg
        for name, arg in args.items()
    }
    with pytest.raises(ValueError) as caught:
        api.attention(**args)
    assert message in str(caught.value) and "\n" not in str(caught.value)


WRONG_DECODE = {
    "'flash' must be one of": {"implementation": "flash"},
    "must be [B, N, H]": {"q": (2, 1, 4, 8)},
    "must have one B and H": {"q": (3, 4, 8)},
    "the 3 heads of q be a multiple of the 2 of k": {"q": (2, 3, 8)},
    "length int32[3] must be integers [B] = [2]": {"length": jnp.zeros(3, jnp.int32)},
}


@pytest.mark.parametrize("message", WRONG_DECODE)
def test_decoding_calls_that_do_not_fit_are_refused(message):
    args = {"q": (2, 4, 8), "k": (2, 2, 5, 8), "v": (2, 2, 5, 8)}
    args |= {"length": jnp.zeros(2, jnp.int32)} | WRONG_DECODE[message]
    args = {
        name: jnp.zeros(arg) if isinstance(arg, tuple) else arg
        for name, arg in args.items()
    }
    with pytest.raises(ValueError) as caught:
        api.decode(**args)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_empty_range_is_where_its_query_is():
    first = jnp.array([[0, 4, 2, 9, -3]], jnp.int32)
    end = jnp.array([[0, 2, 3, 12, 2]], jnp.int32)
    first, end = guard.ranges(first, end)
    np.testing.assert_array_equal(first, [[0, 1, 2, 3, 0]])
    np.testing.assert_array_equal(end, [[0, 1, 3, 3, 2]])
