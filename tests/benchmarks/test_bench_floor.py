"""The least time of a round: its peaks, its operations and its bytes."""

import importlib
import math

import pytest

from seal_jax.runtime import backend


@pytest.fixture(scope="module")
def load(root):
    """Imports a file of benchmarks/, which find each other as they do when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module


@pytest.fixture(scope="module")
def common(load):
    return load("common")


@pytest.fixture(scope="module")
def workload(load):
    return load("workload")


@pytest.fixture(scope="module")
def floor(load):
    return load("floor")


@pytest.fixture
def published(common, workload, floor):
    """Makes the published round, trained without pads, its first edits kept."""
    articles = workload.load().articles
    whole = dict(
        articles=articles,
        trained_tokens=3_392_730,
        trained_steps=65_490,
        adapter=floor.Lora(32, ("q_proj", "v_proj")),
        kept=tuple((a.proposal_prompt, a.edits[0].tokens) for a in articles),
        imitated=floor.Lora(64, tuple(common.SHAPES["tiny"].linears())),
        imitate_epochs=2,
        imitate_steps=10,
    )
    return lambda **changes: floor.Round(**whole | changes)


@pytest.mark.parametrize(
    "texts, row, step, seconds",
    [
        ([], 1.0, 1.0, 0.0),
        ([0, 0], 1.0, 1.0, 0.0),
        ([3, 1], 1.0, 2.5, 7.5),
        ([1, 3, 0], 2.0, 2.5, 4.0 + 2.5 + 2.5),
        ([2, 2, 2], 1.0, 0.0, 6.0),
    ],
)
def test_decoding_takes_the_longer_of_rows_and_weights(
    floor, texts, row, step, seconds
):
    got = floor.decoding(texts, seconds_per_row=row, seconds_per_step=step)
    assert got == seconds


@pytest.mark.parametrize(
    "kind, peak, bandwidth",
    [
        ("NVIDIA H200", 989e12, 4.8e12),
        ("TPU v5 lite", 197e12, 0.819e12),
        ("TPU v5", 459e12, 2.765e12),
        ("NVIDIA A100-SXM4-40GB", 312e12, None),
        ("cpu", None, None),
        ("NVIDIA H200", None, None),
    ],
)
def test_a_floor_needs_both_peaks(floor, kind, peak, bandwidth):
    got = floor.machine(kind, peak)
    want = None if bandwidth is None else pytest.approx((0.8 * peak, 0.9 * bandwidth))
    assert got == want


def test_bandwidths_are_of_devices_whose_flops_are_known(floor):
    for kind in floor.PEAK_BYTES:
        device = type("Device", (), {"device_kind": kind})
        assert backend.peak_flops(device) is not None


def test_the_floor_of_the_published_round_is_the_one_worked_out_by_hand(
    common, floor, published
):
    machine = floor.machine("NVIDIA H200", 989e12)
    seconds = floor.by_phase(common.SHAPES["qwen2.5-7b"], published(), machine)
    # By hand, for 3.42 M tokens at 790 TFLOP/s and 4.3 TB/s: 123 s and 5 of AdamW for
    # training, 8 for proposals, 5 for answers, 1.7 for imitation; 142 in all.
    assert seconds["adapt"] == pytest.approx(128, rel=0.02)
    assert seconds["propose"] == pytest.approx(8, abs=1)
    assert seconds["evaluate"] == pytest.approx(5, abs=1.5)
    assert seconds["imitate"] == pytest.approx(1.7, abs=0.2)
    assert sum(seconds.values()) == pytest.approx(142, rel=0.03)


def test_operations_equal_those_counted_product_by_product(
    common, workload, floor, published
):
    shape = common.SHAPES["tiny"]
    article = workload.parse(
        [
            {
                "proposal_prompt": 5,
                "question_prompts": [3, 4],
                "gold_answers": [1, 1],
                "base_answers": [2, 0],
                "edits": [{"tokens": 6, "lines": [7], "answers": [[1, 2], [0, 3]]}],
            }
        ]
    ).articles
    work = published(
        articles=article,
        trained_tokens=7,
        kept=((5, 6),),
        adapter=floor.Lora(4, ("q_proj", "v_proj")),
        imitated=floor.Lora(2, ("up_proj",)),
    )
    # One operation a second, and memory for nothing.
    got = floor.by_phase(shape, work, floor.Machine(1.0, math.inf))
    head = 2 * shape.width * shape.vocab
    body = sum(2 * d * f for d, f in shape.linears().values()) * shape.layers
    (d, q), (_, v) = (shape.linears()[name] for name in ("q_proj", "v_proj"))
    # x A and (x A) B; the backward pass has two products for each.
    adapter = 2 * 4 * (d + q + d + v) * shape.layers
    up = 2 * 2 * sum(shape.linears()["up_proj"]) * shape.layers
    # Every prompt's last token is unembedded, and every token that is decoded.
    assert got["propose"] == 5 * body + head + 6 * (body + head)
    assert got["adapt"] == 7 * (2 * (body + head) + 3 * adapter)
    under_adapters = 2 * (3 + 4) * (body + adapter) + 4 * head
    under_adapters += (1 + 2 + 0 + 3) * (body + adapter + head)
    base = (3 + 4) * body + 2 * head + 2 * (body + head)
    assert got["evaluate"] == under_adapters + base
    assert got["imitate"] == 2 * (11 * (2 * body + 3 * up) + 7 * 2 * head)


def test_bytes_are_those_of_adam_of_the_weights_and_of_the_merge(
    common, workload, floor, published
):
    shape = common.SHAPES["tiny"]
    got = floor.by_phase(shape, published(), floor.Machine(math.inf, 1.0))
    weights = 2 * shape.matmul_parameters()
    own = shape.lora_parameters(rank=32, targets=("q_proj", "v_proj"))
    assert got["adapt"] == 65_490 * own * 30
    # A token of the longest text a step.
    longest = max(edit.tokens for edit in workload.load().edits())
    assert got["propose"] == longest * weights
    assert got["evaluate"] == (64 + 64) * weights
