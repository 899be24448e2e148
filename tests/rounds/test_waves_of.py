"""Adapters that practise: who answers in which wave, and what is trained then."""

import dataclasses

import jax
import make_run as run_maker
import numpy as np
import pytest

from seal_jax.generation import policies
from seal_jax.rounds import trials
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage, Question

ITEM = Passage("p0", "Karsk", "Ada cooks rye bread.", (Question("x?", "y"),))
EDIT = Edit(0, 0, "", "", pairs=(("Who?", "Ada"), ("What?", "bread")))
IDS = [(1, 0, 0, seed) for seed in range(3)]


class Letters(policies.Policy):
    """Reads a token for each letter."""

    def encode(self, text):
        return [ord(letter) for letter in text]

    sequence = line = encode
    context = 4096

    def turn(self, text):
        return text


POLICY = Letters(None, {}, None, (0,), None)  # pyright: ignore


@pytest.fixture
def calls(monkeypatch):
    """Calls of `policies.answer`; each answer tells its call, adapter and question."""
    made = []

    def answer(policy, adapters, prompts, keys_A, decoding, **_):
        made.append((adapters, prompts, keys_A, decoding))
        return [
            [f"{len(made)} {a} {q}\nQuestion: more" for q in range(len(group))]
            for a, group in enumerate(prompts)
        ]

    def log_likelihood(policy, adapters, pairs, decoding):
        return [[-0.5 for _ in group] for group in pairs]

    monkeypatch.setattr(policies, "answer", answer)
    monkeypatch.setattr(policies, "log_likelihood", log_likelihood)
    return made


@pytest.fixture
def make(tmp_path):
    with run_maker.opened(tmp_path) as opened:

        def make(rule="on_policy", **changes):
            changes = {
                "inner__epochs": 7,
                "inner__teach__waves": 3,
                "inner__teach__temperature": 0.25,
                "answer__max_tokens": 8,
            } | changes
            run = opened(blank=POLICY, inner__rule=rule, **changes)
            return dataclasses.replace(run, task=run.task.under(rule))

        yield make


def waves_of(run, note=lambda wave, told: None):
    written = [(ITEM, EDIT)] * len(IDS)
    return trials.waves_of(run.exp, run.task, POLICY, written, IDS, note)


def test_each_wave_is_answered_by_what_the_one_before_it_left(make, calls):
    told = []
    waves = waves_of(make(), lambda wave, practice: told.append(practice))
    assert waves.count == 3 and waves.targets == 9
    rows, left = range(1, 3), [None, "after 1", "after 2"]
    jobs = [waves.jobs(wave, rows, adapters) for wave, adapters in enumerate(left)]
    assert [call[0] for call in calls] == left
    # Of this pool's adapters alone, without the passage, at the group's temperature.
    for _, prompts, _, decoding in calls:
        assert len(prompts) == len(rows) and decoding.temperature == 0.25
        assert not any(ITEM.text in prompt for group in prompts for prompt in group)
    # No two waves, and no two adapters, draw with the same numbers.
    drawn = {
        np.asarray(key).tobytes()
        for call in calls
        for key in jax.random.key_data(call[2])
    }
    assert len(drawn) == 3 * len(rows)
    # The epochs of all waves are those of the whole, each once.
    assert [wave[0].span for wave in jobs] == [(0, 2), (2, 4), (4, 7)]
    for wave, made in enumerate(jobs, start=1):
        for a, job in enumerate(made):
            tails = [ids[g:] for ids, g in zip(job.lines, job.given, strict=True)]
            assert tails == [tuple(map(ord, f"{wave} {a} {q}")) for q in range(2)]
            assert job.seed[-4:] == IDS[rows[a]]
    assert [practice.answers for practice in told] == [4, 4, 4]
    assert told[0].surprise == 0.5 and told[0].distinct == 1.0


def test_one_wave_on_the_teachers_answers_is_distillation(make, calls, monkeypatch):
    """The same tails, teachers and steps, but for the random numbers of the draw."""
    monkeypatch.setattr(
        policies,
        "answer",
        lambda policy, adapters, prompts, keys, decoding: [["Ada", "bread"]] * 3,
    )
    rates = {"inner__teach__rates__on_policy": 0.5, "inner__teach__rates__distill": 0.5}
    waves = waves_of(make(inner__teach__waves=1, **rates))
    (job, *_) = waves.jobs(0, range(3), None)
    want = make("distill", **rates).task.job(ITEM, EDIT, job.seed)
    assert dataclasses.replace(job, span=None) == want and job.span == (0, 7)


@pytest.mark.parametrize("rule", ["edits", "quiz", "distill", "distill_edits", "mix"])
def test_no_other_rule_has_waves(make, calls, rule):
    assert waves_of(make(rule)) is None and calls == []
