"""Which implementation runs: by name, by platform, by a table of measurements."""

import json
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seal_kernels.lora_matmul import api, dispatch, xla
from seal_kernels.tuned import table

KERNELS = {"triton": "cuda", "mosaic_gpu": "cuda", "mosaic_tpu": "tpu"}
SHAPE = table.Shape("forward", "bfloat16", M=2048, D=3584, F=512, R=32, tile=16)
ROW = {
    "direction": "forward",
    "dtype": "bfloat16",
    "M": 2048,
    "D": 3584,
    "F": 512,
    "R": 32,
    "tile": 16,
    "implementation": "mosaic_gpu",
    "config": {"tile_m": 64},
    "seconds": 1.0,
    "xla_seconds": 1.2,
}


def write(folder, kind, *rows):
    path = table.path_of(kind, folder)
    path.write_text(json.dumps({"lora_matmul": rows}))
    return path


def operands(adapters=3, rows=4):
    shapes = (adapters, rows, 8), (8, 12), (adapters, 2, 8), (adapters, 2, 12)
    draw = np.random.default_rng(0).normal
    return [jnp.asarray(draw(size=shape), jnp.float32) for shape in shapes]


def packed(implementation):
    op = api.lora_matmul_packed
    return lambda x, w, a, b: op(
        x.reshape(-1, 8), w, a, b, jnp.arange(3), implementation=implementation
    )


def dense(implementation):
    op = lambda *args: api.lora_matmul(*args, implementation=implementation)
    return jax.vmap(op, (0, None, 0, 0))


def gradient(op):
    return jax.grad(lambda *args: jnp.sum(op(*args)), (0, 2, 3))


def products(text):
    """The types of a program's matmuls, in order."""
    dots = [line for line in text.splitlines() if "dot_general" in line]
    return [line.rsplit(" : ", 1)[1] for line in dots]


def fake_kernel(refuses=lambda x_MD: False):
    """An implementation that can be told by an operation XLA's does not have."""

    def marked(pass_of_xla):
        def run(*args):
            if refuses(args[0]):
                raise NotImplementedError(f"rows={len(args[0])} is odd for it")
            first, *rest = pass_of_xla(*args)
            return first + 0 * jnp.cbrt(first), *rest

        return run

    return types.SimpleNamespace(
        forward=marked(xla.forward), backward=marked(xla.backward)
    )


def lowered(function, platform):
    traced = jax.jit(function).trace(*operands())
    return traced.lower(lowering_platforms=(platform,)).as_text()


def test_a_name_that_is_none_is_refused():
    for op in (dense, packed):
        with pytest.raises(
            ValueError, match=r"='cuda' must be one of auto, plain, ref"
        ):
            op("cuda")(*operands())


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("op", [dense, packed])
def test_a_kernel_asked_for_elsewhere_says_why(name, op, monkeypatch):
    monkeypatch.setattr(dispatch, "_module", lambda name: fake_kernel())
    function = op(name)
    for run in (
        function,
        jax.jit(function),
        gradient(function),
        jax.jit(gradient(function)),
    ):
        with pytest.raises(NotImplementedError) as caught:
            run(*operands())
        message = str(caught.value)
        assert "\n" not in message
        for part in (name, f"for {KERNELS[name]} only", "use 'auto' or 'xla'"):
            assert part in message


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("op", [dense, packed])
def test_a_kernel_is_what_its_platform_gets(name, op, monkeypatch):
    monkeypatch.setattr(dispatch, "_module", lambda name: fake_kernel())
    both = lambda *args: (op(name)(*args), gradient(op(name))(*args))
    text = lowered(both, KERNELS[name])
    assert text.count("cbrt") >= 2
    # The other platforms' branch is gone, not left to be chosen at run time.
    both_of_xla = lambda *args: (op("xla")(*args), gradient(op("xla"))(*args))
    products = lowered(both_of_xla, KERNELS[name]).count("dot_general")
    assert text.count("dot_general") == products > 0


@pytest.mark.parametrize("op", [dense, packed])
def test_a_kernel_that_refuses_a_shape_is_not_replaced(op, monkeypatch):
    kernel = fake_kernel(refuses=lambda x_MD: True)
    monkeypatch.setattr(dispatch, "_module", lambda name: kernel)
    with pytest.raises(NotImplementedError, match="rows=12 is odd for it; use 'auto'"):
        lowered(op("mosaic_gpu"), "cuda")


def test_a_shape_that_only_tracing_meets_may_be_refused(monkeypatch):
    # Before the batch is known, the dense operation is traced for one adapter.
    kernel = fake_kernel(refuses=lambda x_MD: len(x_MD) != 12)
    monkeypatch.setattr(dispatch, "_module", lambda name: kernel)
    assert "cbrt" in lowered(dense("mosaic_gpu"), "cuda")
    assert "cbrt" in lowered(gradient(dense("mosaic_gpu")), "cuda")


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize("pays", [True, False])
def test_auto_without_a_table_is_what_its_platform_likes(
    platform, pays, tmp_path, monkeypatch
):
    monkeypatch.setattr(table, "FOLDER", tmp_path)
    monkeypatch.setattr(dispatch.dense, "pays", lambda adapters, tile: pays)
    expected = "dense" if pays and platform != "cpu" else "xla"
    found = {
        name: products(lowered(gradient(packed(name)), platform))
        for name in ("auto", "xla", "dense")
    }
    assert found["auto"] == found[expected]
    assert found["xla"] != found["dense"]
    # With a tile for each adapter there is nothing to gather.
    alone = [gradient(dense(name)) for name in ("auto", "xla")]
    assert len({str(products(lowered(op, platform))) for op in alone}) == 1


def test_auto_without_a_table_is_triton_for_packed_rows_on_cuda(tmp_path, monkeypatch):
    """Where a tile each is known to have its own adapter, batched products do."""
    monkeypatch.setattr(table, "FOLDER", tmp_path)
    names = []
    monkeypatch.setattr(dispatch, "_module", lambda name: names.append(name) or kernel)
    for kernel in (fake_kernel(), fake_kernel(refuses=lambda x_MD: True)):
        refuses = kernel is not None and bool(names)
        for here in ("cuda", "cpu"):
            monkeypatch.setattr(
                dispatch, "expects", lambda name, here=here: name == here
            )
            for platform in ("cpu", "cuda", "tpu"):
                text = lowered(gradient(packed("auto")), platform)
                taken = here == platform == "cuda" and not refuses
                assert ("cbrt" in text) == taken, (here, platform)
                assert "cbrt" not in lowered(gradient(dense("auto")), platform)
                assert "cbrt" not in lowered(gradient(packed("plain")), platform)
    assert set(names) == {"triton"}


@pytest.mark.parametrize("name", [*dispatch.IMPLEMENTATIONS])
def test_where_adapters_lie_is_of_no_matter_to_tritons_alone(
    name, tmp_path, monkeypatch
):
    monkeypatch.setattr(table, "FOLDER", tmp_path)
    assert not dispatch.reads_in_place(name, 32)  # No GPU here.
    monkeypatch.setattr(dispatch, "expects", lambda platform: platform == "cuda")
    assert not dispatch.reads_in_place(name, 32)  # Nor one that jax can name.
    monkeypatch.setattr(dispatch.triton, "capability", lambda: 90)
    assert dispatch.reads_in_place(name, 32) == (name in ("auto", "triton"))
    assert not dispatch.reads_in_place(name, 40)  # Padded, adapters would be copied.
    # Measurements that all speak for it, and one that does not.
    kind = jax.devices()[0].device_kind
    for others, ours in (
        ([], ("auto", "triton")),
        ([{**ROW, "implementation": "xla", "seconds": 2.0}], ("triton",)),
        ([{**ROW, "implementation": "dense"}], ("triton",)),
        ([{**ROW, "implementation": "triton", "seconds": 2.0}], ("triton",)),
    ):
        write(
            tmp_path, kind, {**ROW, "implementation": "triton", "config": {}}, *others
        )
        table._load.cache_clear()
        assert dispatch.reads_in_place(name, 32) == (name in ours)
    table._load.cache_clear()


def test_all_adapters_at_once_pay_for_few_adapters_or_small_tiles():
    assert dispatch.dense.pays(48, 8) and dispatch.dense.pays(6, 128)
    assert not dispatch.dense.pays(24, 64) and not dispatch.dense.pays(1024, 1)


@pytest.mark.parametrize("kind", ["cpu", "another"])
def test_auto_is_what_the_table_of_the_device_says(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(table, "FOLDER", tmp_path)
    sizes = {"M": 12, "D": 8, "F": 12, "R": 2, "tile": 4, "dtype": "float32"}
    row = {**ROW, **sizes, "implementation": "reference"}
    write(tmp_path, kind, row, {**row, "direction": "backward"})
    expected = "reference" if kind == jax.devices()[0].device_kind else "xla"
    text = lambda name: products(lowered(gradient(packed(name)), "cpu"))
    assert text("auto") == text(expected)
    assert text("reference") != text("xla")


def test_auto_falls_back_where_the_tuned_kernel_cannot(tmp_path, monkeypatch):
    kernel = fake_kernel(refuses=lambda x_MD: True)
    monkeypatch.setattr(dispatch, "_module", lambda name: kernel)
    monkeypatch.setattr(dispatch, "choose", lambda *args: ("mosaic_gpu", {}))
    args = operands()
    want = dense("xla")(*args)
    np.testing.assert_array_equal(dense("auto")(*args), want)
    assert "dot_general" in lowered(dense("auto"), "cuda")
    monkeypatch.setattr(dispatch, "_module", lambda name: fake_kernel())
    np.testing.assert_array_equal(dense("auto")(*args), want)
    assert "cbrt" in lowered(dense("auto"), "cuda")
    assert "cbrt" not in lowered(dense("auto"), "cpu")


@pytest.mark.parametrize(
    "changed, name",
    [
        ({}, "mosaic_gpu"),
        ({"seconds": 1.2}, "plain"),
        ({"seconds": 2.0}, "plain"),
        ({"direction": "backward"}, "auto"),
        ({"dtype": "float32"}, "auto"),
        ({"M": 4096}, "mosaic_gpu"),
        ({"M": 4097}, "auto"),
        ({"M": 1023}, "auto"),
        ({"D": 8000}, "auto"),
        ({"F": 200}, "auto"),
        ({"R": 8}, "auto"),
        ({"tile": 64}, "auto"),
        ({"tile": 8, "R": 64, "F": 896}, "mosaic_gpu"),
    ],
)
def test_a_measurement_speaks_for_shapes_near_it(changed, name, tmp_path):
    write(tmp_path, "NVIDIA H200", {**ROW, **changed})
    assert dispatch.choose(SHAPE, "NVIDIA H200", tmp_path)[0] == name
    assert dispatch.choose(SHAPE, "NVIDIA H100", tmp_path) == ("auto", {})


def test_a_kernel_runs_as_it_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "FOLDER", tmp_path)
    kind = jax.devices()[0].device_kind
    sizes = {"M": 12, "D": 8, "F": 12, "R": 2, "tile": 4, "dtype": "float32"}
    write(tmp_path, kind, {**ROW, **sizes})
    seen = []

    def forward(*args, config):
        seen.append(config)
        return xla.forward(*args)

    kernel = types.SimpleNamespace(forward=forward, Config=lambda **fields: fields)
    monkeypatch.setattr(dispatch, "_module", lambda name: kernel)
    lowered(dense("auto"), "cuda")
    assert {"tile_m": 64} in seen


def test_the_nearest_measurement_decides_even_if_it_lost(tmp_path):
    won = {**ROW, "M": 1024, "F": 1024}
    write(tmp_path, "NVIDIA H200", won)
    assert dispatch.choose(SHAPE, "NVIDIA H200", tmp_path)[0] == "mosaic_gpu"
    lost = {**ROW, "M": 1500, "seconds": 1.3}
    (tmp_path / "again").mkdir()
    write(tmp_path / "again", "NVIDIA H200", won, lost)
    assert dispatch.choose(SHAPE, "NVIDIA H200", tmp_path / "again")[0] == "plain"
    entry = table.nearest("lora_matmul", SHAPE, "NVIDIA H200", tmp_path / "again")
    assert entry is not None
    assert (entry.shape.M, entry.config, entry.ahead()) == (1500, {"tile_m": 64}, False)
    assert table.nearest("other", SHAPE, "NVIDIA H200", tmp_path) is None


@pytest.mark.parametrize(
    "kind, name",
    [
        ("NVIDIA H200", "nvidia-h200.json"),
        ("TPU v5 lite", "tpu-v5-lite.json"),
        ("NVIDIA A100-SXM4-80GB", "nvidia-a100-sxm4-80gb.json"),
        ("cpu", "cpu.json"),
    ],
)
def test_a_device_kind_names_its_file(kind, name):
    assert table.path_of(kind) == table.FOLDER / name


@pytest.mark.parametrize(
    "text, parts",
    [
        ("[]", ["AttributeError"]),
        ("{", ["JSONDecodeError"]),
        (json.dumps({"lora_matmul": [{**ROW, "M": 0}]}), ["no such shape"]),
        (json.dumps({"lora_matmul": [{**ROW, "direction": "up"}]}), ["no such shape"]),
        (json.dumps({"lora_matmul": [{"M": 1}]}), ["KeyError", "direction"]),
        (
            json.dumps({"lora_matmul": [{**ROW, "implementation": "auto"}]}),
            ["implementation='auto'", "must be one of reference, xla"],
        ),
    ],
)
def test_a_table_that_is_wrong_is_refused(text, parts, tmp_path):
    path = table.path_of("cpu", tmp_path)
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        dispatch.choose(SHAPE, "cpu", tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in [str(path), *parts]), message


def test_the_api_does_not_load_pallas(child_env):
    code = (
        "import sys; from seal_kernels.lora_matmul import api, cases\n"
        "print([m for m in sys.modules if m.startswith('jax.experimental.pallas')])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=child_env, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
