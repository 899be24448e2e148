"""The simulated queue: what it counts, and what the published lengths come to."""

import dataclasses
import importlib
import json

import numpy as np
import pytest

from seal_jax.generation import schedule, side_by_side
from seal_jax.generation.settings import Decoding

DECODING = Decoding(
    prompt="plain",
    temperature=0.0,
    top_p=1.0,
    top_k=0,
    min_tokens=0,
    max_tokens=64,
    prompt_multiple=8,
    batch=4,
)


@pytest.fixture(scope="module")
def bench(root):
    """benchmarks/occupancy.py, imported beside the files it shares."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module("occupancy")


@pytest.fixture(scope="module")
def squad(bench):
    return bench.squad()


def wanted(lengths, adapters=0):
    return [
        (side_by_side.Request((i + 1,), i % adapters if adapters else -1), n)
        for i, n in enumerate(lengths)
    ]


def test_rows_without_a_text_are_what_occupancy_lacks(bench):
    made = bench.simulate(wanted([10, 20, 30]), DECODING, adapters=0)
    assert (made["texts"], made["tokens"], made["rows"]) == (3, 60, 4)
    assert made["steps"] == 30  # too few to move together for
    assert made["row_steps"] == 4 * 30
    assert made["occupancy"] == 60 / (4 * 30)
    assert (made["readings"], made["prompt_tokens"]) == (1, 3)
    assert made["prompt_efficiency"] == 3 / 8  # one row of eight tokens
    assert made["programs"] == [(4, 0)]


def test_a_text_at_the_limit_needs_no_draw_to_end_it(bench):
    assert bench.simulate(wanted([63]), DECODING, adapters=0)["steps"] == 63
    assert bench.simulate(wanted([64]), DECODING, adapters=0)["steps"] == 63


def test_the_last_texts_go_on_in_fewer_rows(bench):
    long = dataclasses.replace(DECODING, max_tokens=1000, batch=64)
    made = bench.simulate(wanted([10] * 63 + [500]), long, adapters=0)
    assert made["programs"] == [(64, 0), (2, 0)]
    assert (made["steps"], made["row_steps"]) == (500, 64 * 10 + 2 * 490)


def test_copies_of_adapters_count_while_a_row_under_them_goes_on(bench):
    made = bench.simulate(wanted([10, 20, 30, 40], adapters=2), DECODING, adapters=2)
    assert (made["steps"], made["copies_per_step"]) == (40, 2.0)
    assert made["adapters_per_step"] == (30 + 40) / 40


def test_nothing_to_continue_is_refused(bench):
    with pytest.raises(ValueError, match="there are no prompts"):
        bench.simulate([(side_by_side.Request(()), 3)], DECODING, adapters=0)


def test_every_text_is_decoded_once(bench, squad):
    requested, decoding, adapters = squad["squad evaluate"]
    requests, lengths = zip(*requested, strict=True)
    prompts = side_by_side.distinct(requests, adapters)
    sizes = schedule.sizes(
        prompts,
        adapters=adapters,
        batch=decoding.batch,
        per_page=6,
        prompt_multiple=32,
        shards=2,
    )
    device = bench.Simulated(lengths, sizes, most=decoding.max_tokens)
    schedule.run(prompts, device, sizes, most=decoding.max_tokens)
    assert sorted(device.collected) == list(range(len(requests)))
    assert device.used_row_steps == np.minimum(lengths, decoding.max_tokens - 1).sum()


@pytest.mark.parametrize("name", ["squad propose", "squad evaluate"])
def test_the_published_round_keeps_four_rows_in_five_busy(bench, squad, name):
    requested, decoding, adapters = squad[name]
    made = bench.simulate(requested, decoding, adapters=adapters)
    assert made["occupancy"] >= 0.8
    assert made["prompt_efficiency"] >= 0.8
    assert len(made["programs"]) <= 4
    # No text waits longer than it must: all rows, one after the other, or the longest.
    least = max(made["tokens"] / made["rows"], decoding.max_tokens)
    assert made["steps"] <= 1.25 * least


def test_the_last_line_is_the_result_and_says_that_it_is_modelled(
    bench, squad, monkeypatch, capsys
):
    few = {"squad base": squad["squad base"]}
    monkeypatch.setattr(bench, "squad", lambda: few)
    monkeypatch.setattr(bench, "arc", dict)
    assert bench.main([]) == 0
    *head, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert result["modelled"] is True and result["device"] == "modelled"
    assert set(result["work"]) == {"squad base"}
    assert head[0].startswith("modelled")
