"""Rows of a run without labels, from what was said."""

import pytest
import tiny_model

from seal_jax.experiment import kinds
from seal_jax.lmsi import table, votes
from seal_jax.lmsi.settings import Lmsi
from seal_jax.tasks.chains import Question


def test_direct_answers_that_take_steps_are_told():
    exp = kinds.read(tiny_model.load_config("lmsi", "debug").to_dict())
    assert isinstance(exp, Lmsi)
    direct = ["Answer: 1", "1 is 1.\nAnswer: 1", "I do not know.\nI do.", "Answer: 2"]
    side = table.Side("train", [Question(f"{i}?", "1") for i in range(4)])
    voted = [votes.of_texts(["a\nAnswer: 1"])] * 4
    looked = table.Looked(table.Stage(), side, direct, ["a\nAnswer: 1"] * 4, voted)
    summary = table.summary(exp, [looked])
    (row,) = summary["votes"]
    assert row["direct_steps"] == pytest.approx(0.25)
    means = {row["name"]: row["mean"] for row in summary["ladder"]}
    assert means == {"base direct": 0.5, "base chain": 1.0, "base consistency": 1.0}
