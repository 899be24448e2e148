"""What a round's report says of the policy's entropy, and what of it is kept."""

import make_run as run_maker
import pytest

from seal_jax.generation import policies
from seal_jax.rounds import proposals
from seal_jax.tasks.base import Edit

EDITS = [
    Edit(0, 0, "prompt a", "one two"),
    Edit(0, 1, "", "of no policy", fixed=True),
    Edit(1, 0, "prompt b", "three", refused="long"),
]


@pytest.fixture
def make_run(tmp_path):
    with run_maker.opened(tmp_path) as make:
        yield make


def test_it_is_a_mean_over_tokens_and_asked_for_once(make_run, monkeypatch):
    calls = []

    def surprise(policy, written, decoding):
        calls.append((written, decoding))
        return [policies.Surprise(6.0, 3), policies.Surprise(2.0, 1)]

    monkeypatch.setattr(policies, "surprise", surprise)
    run = make_run()
    for _ in range(2):  # The second time as a run that is resumed.
        found = proposals.entropy(run, run_maker.BLANK, EDITS, phase="round_1")
        assert found == 2.0
        run = make_run()
    # What was refused was written, too.
    written = [("prompt a", "one two"), ("prompt b", "three")]
    assert calls == [(written, run.task.writing)]


def test_where_no_policy_wrote_there_is_none(make_run):
    run = make_run()
    fixed = [EDITS[1]]
    assert proposals.entropy(run, run_maker.BLANK, fixed, phase="round_1") is None
    assert "round_1/entropy" not in run.journal
