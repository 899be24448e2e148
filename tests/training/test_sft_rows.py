"""Lines packed into rows for fine-tuning."""

import json
import re

import numpy as np
import pytest

from seal_jax.training import sft_rows

EOS = 5


def wholes(lines):
    return [sft_rows.line(ids, first_target=1, eos=EOS) for ids in lines]


def test_completions_and_their_end_are_targets():
    pairs = [((1, 2), (3, 4)), ((7,), ())]
    lines = [
        sft_rows.line([*prompt, *completion], first_target=len(prompt), eos=EOS)
        for prompt, completion in pairs
    ]
    rows = sft_rows.pack(lines, width=6, multiple=1, eos=EOS)
    assert rows["tokens"].tolist() == [[1, 2, 3, 4, 7, EOS]]
    assert rows["targets"].tolist() == [[2, 3, 4, EOS, EOS, EOS]]
    assert rows["positions"].tolist() == [[0, 1, 2, 3, 0, 0]]
    assert rows["segments"].tolist() == [[0, 0, 0, 0, 1, -1]]
    assert rows["weights"].tolist() == [[0, 1, 1, 1, 1, 0]]


def test_a_line_wider_than_a_row_is_refused_with_what_would_do():
    with pytest.raises(ValueError, match=r"a line of 9 positions .* use width=9"):
        sft_rows.pack(wholes([range(3), range(9)]), width=8, multiple=1, eos=EOS)


@pytest.mark.parametrize("longest, width", [(1, 8), (8, 8), (9, 16)])
def test_the_width_takes_the_longest_line(longest, width):
    assert sft_rows.width([1, longest], 8) == width


@pytest.mark.parametrize("sizes", [(1,), (8,), (3, 3, 3), (5, 4, 3, 8, 1), (2,) * 9])
@pytest.mark.parametrize("multiple", [1, 2])
def test_every_line_lies_in_the_rows_once(sizes, multiple):
    rng = np.random.default_rng(0)
    lines = [rng.integers(0, 24, n).tolist() for n in sizes]
    rows = sft_rows.pack(wholes(lines), width=8, multiple=multiple, eos=EOS)
    assert len(rows["tokens"]) % multiple == 0
    for i, line in enumerate(lines):
        at = np.argwhere(rows["segments"] == i)
        assert len(set(at[:, 0])) == 1 and (np.diff(at[:, 1]) == 1).all()
        here = tuple(at.T)
        assert rows["tokens"][here].tolist() == line
        assert rows["targets"][here].tolist() == [*line[1:], EOS]
        assert rows["positions"][here].tolist() == list(range(len(line)))
    taken = rows["segments"] >= 0
    assert taken.sum() == sum(sizes)
    assert (rows["weights"] == taken).all()


@pytest.mark.parametrize(
    ("sizes", "rows"), [((4, 4, 4, 4), 2), ((8, 8), 2), ((5, 3, 6, 2), 2), ((1,), 1)]
)
def test_rows_are_filled(sizes, rows):
    lines = [[0] * n for n in sizes]
    packed = sft_rows.pack(wholes(lines), width=8, multiple=1, eos=EOS)
    assert packed["tokens"].shape == (rows, 8)


def test_the_released_set_fills_its_rows(seal_data):
    """Counted in words and marks, since no tokenizer of the paper's model is here."""
    folder = seal_data / "knowledge-incorporation/data/synthetic_data/EM_SFT"
    text = (folder / "sft_best1of5_iter0.jsonl").read_text(encoding="utf-8")
    pairs = [json.loads(row) for row in text.splitlines()]
    sizes = [
        len(re.findall(r"\w+|[^\w\s]", pair["prompt"] + " " + pair["completion"]))
        for pair in pairs
    ]
    width, computed = sft_rows.width(sizes, 256), 0
    order = np.random.default_rng(0).permutation(len(sizes))
    for start in range(0, len(order), 10):
        lines = wholes([[0] * sizes[i] for i in order[start : start + 10]])
        rows = sft_rows.pack(lines, width=width, multiple=1, eos=EOS)
        computed += rows["tokens"].size
    assert sum(sizes) / (len(sizes) * width) < 0.25
    assert sum(sizes) / computed > 0.7
