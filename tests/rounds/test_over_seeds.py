"""Many seeds: what is refused, what a kill loses, and what the summary says."""

import device_round
import jax
import numpy as np
import pytest
import tiny_model

from seal_jax.analysis import novelty_measures, stats
from seal_jax.experiment import kinds, one_run
from seal_jax.report import console
from seal_jax.rounds import on_device, over_seeds, seeds_summary
from seal_jax.rounds.experiments import Outcome, Round, Rows
from seal_jax.rounds.token_steps import Text
from seal_jax.runtime import files

NAMES = ["base", "passage_only", "sentence_split", "self_edits", "random_kept"]
NAMES += ["round_1", "round_2", "oracle"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edit__split": "whole"}, "edit.split='whole' has no form on tokens; use"),
        ({"edit__quirks": "reference"}, "edit.quirks='reference' has no form"),
        ({"inner__loss__mode": "padded"}, "inner.loss.mode='padded' has no form"),
        ({"grade__name": "f1"}, "grade.name='f1' has no form"),
        ({"select__reward": "log_likelihood"}, "select.reward='log_likelihood' has"),
        ({"select__compare": ("rubric",)}, "select.compare="),
        ({"select__novelty_bonus": 0.5}, "select.novelty_bonus=0.5 has"),
        ({"select__max_overlap": 0.5}, "select.max_overlap=0.5 has"),
        (
            {"imitate__rule": "dpo"},
            "imitate.rule='dpo' has .* use 'best' or 'positive'",
        ),
        ({"imitate__start": "base"}, "imitate.start='base' has"),
        ({"imitate__data": "accumulate"}, "imitate.data='accumulate' has"),
        (
            {"stop__rule": "plateau", "scale__heldout_passages": 9},
            "stop.rule='plateau' has",
        ),
        ({"mesh__model": 2}, "mesh.model=2 has"),
        (
            {"model__base_dtype": "float8"},
            "model.base_dtype='float8' is for the packed engine, .* use 'same'",
        ),
        ({"seed": 2**32 - 1}, r"seed \+ over_seeds.count - 1"),
        ({"ladder": ("base", "in_context")}, "'in_context' has no form on tokens"),
        ({"over_seeds": {"chunk": 3}}, "over_seeds.count=2 must be a multiple of"),
        ({"over_seeds": {"count": 1}}, "over_seeds.count=1"),
        (
            {"over_seeds": {"chunk": 2, "count": 4, "together": 3}},
            "over_seeds.chunk=2 must be a multiple of over_seeds.together=3",
        ),
    ],
    ids=str,
)
def test_what_has_no_form_on_tokens_is_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        device_round.experiment("model", **changes)
    assert "\n" not in str(caught.value)


def test_each_seed_has_its_own_passages_and_draws(path):
    exp = device_round.experiment(path)
    train, heldout = over_seeds.load(exp)
    assert len(train) == 2 * exp.scale.rounds
    assert len(heldout) == 2 * exp.scale.heldout_passages
    assert len({p.text for items in train for p in items}) == 8
    assert exp.at(1).seed == exp.at(1).task.shuffle_seed == 1


def made_up(exp, plans):
    """An outcome without a model; right answers are drawn by the seed."""
    scale, outcomes = exp.scale, []
    for plan in plans:
        rng = np.random.default_rng(plan.heldout.seed)

        def trials(*shape, rng=rng):
            right, zero = rng.integers(0, 7, shape), np.zeros(shape)
            return on_device.Trials(right, zero, zero > 0, zero)

        held, edits = scale.heldout_passages, scale.edits
        shape = (scale.rounds, scale.passages, edits)
        outcomes.append(
            Outcome(
                Rows(
                    trials(7, held, 1, 1),
                    np.arange(7 * held).reshape(7, held, 1) == 0,
                    np.full(held, 3),
                    np.full(held, 6),
                ),
                Round(
                    on_device.Edits(
                        Text(np.ones((*shape, 4), int), np.full(shape, 4)),
                        np.zeros(shape) > 0,
                    ),
                    on_device.Surprise(rng.random(shape), np.full(shape, 4)),
                    trials(*shape, scale.seeds),
                    np.full(shape[:2], 3),
                    np.zeros((*shape[:2], 1), int),
                    np.zeros((scale.rounds, 1)),
                ),
                np.zeros((scale.rounds, scale.passages, 1), int),
            )
        )
    return jax.tree.map(lambda *leaves: np.stack(leaves), *outcomes)


@pytest.fixture
def called(monkeypatch):
    """The program is replaced; the seeds that it was asked for."""
    asked = []

    def call(exp, base, plans, cfg, *, mesh):
        asked.append([int(plan.heldout.seed) for plan in plans])
        if len(asked) == 3:
            raise KeyboardInterrupt
        return made_up(exp, plans)

    monkeypatch.setattr(over_seeds, "call", call)
    return asked


def test_a_kill_loses_one_chunk_at_most(path, called, tmp_path):
    values = device_round.values(path, over_seeds={"count": 6, "chunk": 2})
    exp = kinds.read(values)
    with pytest.raises(KeyboardInterrupt):
        one_run.run(exp, values, tmp_path, say=lambda line: None)
    assert called == [[0, 1], [2, 3], [4, 5]]
    said = []
    summary = one_run.run(exp, values, tmp_path, say=said.append)
    assert called[3:] == [[4, 5]]
    assert [row["name"] for row in summary["ladder"]] == NAMES
    assert summary["adapters"] == 6 * (2 * 2 * 3 * 2 + 7 * 2) - 6  # One refused each.
    assert [row["item"] for row in summary["items"]] == [f"seed {i}" for i in range(6)]
    assert (tmp_path / "report.html").is_file()
    assert files.read_json(tmp_path / "summary.json", fix="")["kind"] == "over_seeds"
    assert any("round_2 - round_1" in text and " to " in text for text in said)
    for line in summary["rounds"]:
        by_seed = line["by_seed"]
        assert [one["seed"] for one in by_seed] == [*range(6)]
        values = [one["entropy"] for one in by_seed]
        assert len({*values}) == 6 and line["entropy"] == pytest.approx(np.mean(values))
    assert "Entropy and diversity by round" in (tmp_path / "report.html").read_text()
    logged = {
        (row["step"], name): value
        for row in files.read_jsonl(tmp_path / "metrics.jsonl")
        for name, value in row.items()
    }
    for line in summary["rounds"]:
        assert logged[line["round"], "round/entropy"] == line["entropy"]
        assert logged[line["round"], "round/kept_mean"] == line["kept_mean"]
        for name, value in line["diversity"].items():
            assert logged.get((line["round"], f"diversity/{name}")) == value
    for place, own in enumerate(summary["ladder"]):
        assert logged[place, f"ladder/{own['name']}"] == own["mean"]


def row(*values):
    return {"values": list(values), "empty_rate": 0.0, "failed": 0, "refused": 1}


def test_a_step_is_paired_within_seeds_and_its_interval_is_over_them():
    seeds = [
        {
            "seed": i,
            "rows": {"round_1": row(0.5, None, 0.25), "round_2": row(0.5 + up, 1.0, 1)},
            "rounds": [{"round": 1, "best_mean": 0.5, "kept": 2, "refused": {}}],
        }
        for i, up in enumerate([0.1, 0.2, 0.4])
    ]
    summary = seeds_summary.summary(seeds)
    (pair,) = summary["paired"]
    diffs = [(up + 0.75) / 2 for up in (0.1, 0.2, 0.4)]
    low, high = stats.student(diffs)
    assert (pair["a"], pair["b"]) == ("round_2", "round_1")
    assert pair["diff"] == pytest.approx(np.mean(diffs))
    assert (pair["low"], pair["high"]) == pytest.approx((low, high))
    assert summary["ladder"][0]["n"] == 3
    assert summary["ladder"][0]["mean"] == pytest.approx(0.375)
    assert summary["ladder"][0]["refused"] == 3
    assert summary["rounds"] == [
        {"round": 1, "best_mean": 0.5, "kept": 6, "refused": {}}
    ]
    text = console.summary_table(summary)
    assert "95 %" in text and "+0.492" in text and "tokens" not in text


def test_what_was_written_is_told_of_each_seed_and_in_the_mean():
    nats, tokens = np.array([[6.0, 2.0]]), np.array([[3, 1]])
    told = seeds_summary.written_line(nats, tokens, [["a b c d", "a b c e"]])
    # Over tokens, not over edits.
    assert told["entropy"] == 2.0
    assert told["diversity"] == novelty_measures.diversity([["a b c d", "a b c e"]])
    lines = [
        {"round": 1, "kept": 1, **told},
        {"round": 1, "kept": 1, **told, "entropy": 4.0},
        {"round": 1, "kept": 1},  # Of before it was recorded.
    ]
    seeds = [
        {"seed": i, "rows": {"round_1": row(0.5)}, "rounds": [line]}
        for i, line in enumerate(lines, start=7)
    ]
    (merged,) = seeds_summary.summary(seeds)["rounds"]
    assert (merged["entropy"], merged["kept"]) == (3.0, 3)
    assert merged["diversity"] == told["diversity"]
    assert [(one["seed"], one["entropy"]) for one in merged["by_seed"]] == [
        *((7, 2.0), (8, 4.0)),
    ]


def test_counts_of_answers_become_the_numbers_of_a_round():
    right = np.array([[[6, 0], [3, 3]], [[1, 1], [0, 0]]])
    refused = np.array([[False, False], [False, True]])
    line = seeds_summary.round_line(
        right,
        np.zeros_like(right),
        np.zeros_like(right) > 0,
        refused,
        np.array([3, 0]),
        np.array([[1], [-1]]),
        np.array([6, 3]),
    )
    assert line["baseline_mean"] == 0.25
    assert line["sampled_mean"] == pytest.approx((0.5 + 0.5 + 1 / 3) / 3)
    assert line["best_mean"] == pytest.approx((0.5 + 1 / 3) / 2)
    assert (line["kept_mean"], line["kept"]) == (0.5, 1)
    assert (line["refused"], line["trainings"]) == ({"blank": 1}, 6)


def test_a_passage_whose_edits_were_all_refused_has_no_score():
    right = np.array([[[6]], [[0]]])
    told = seeds_summary.row(
        right,
        np.zeros_like(right),
        np.zeros_like(right) > 0,
        np.array([[False], [True]]),
        np.array([6, 6]),
    )
    assert told["values"] == [1.0, None]
    assert (told["trainings"], told["refused"], told["empty_rate"]) == (1, 1, 0.0)
