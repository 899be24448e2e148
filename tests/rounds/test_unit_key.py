"""Keys of the journal, as text and back."""

import pytest

from seal_jax.rounds import unit_key
from seal_jax.rounds.unit_key import UnitKey

KEYS = {
    "round_1/adapt/0": UnitKey("round_1", "adapt", 0),
    "round_1/rung_1/adapt/12": UnitKey("round_1/rung_1", "adapt", 12),
    "round_1/propose": UnitKey("round_1", "propose"),
    "ladder/base/base/grade": UnitKey("ladder/base/base", "grade"),
    "ladder/oracle/0/answers/1": UnitKey("ladder/oracle/0", "answers", 1),
    "pooled/writer.path": UnitKey("pooled", "writer.path"),
    "policy/imitate/2": UnitKey("policy", "imitate", 2),
    "stop/2": UnitKey("", "stop", 2),
    "sizes": UnitKey("", "sizes"),
}


@pytest.mark.parametrize("text", KEYS)
def test_a_key_is_its_text(text):
    assert UnitKey.parse(text) == KEYS[text]
    assert str(KEYS[text]) == text


def test_units_of_a_stage_are_counted_together():
    assert unit_key.count(KEYS, unit_key.ADAPT) == 2
    assert KEYS["round_1/adapt/0"].stage == "round_1/adapt"
    assert KEYS["sizes"].stage == "sizes"
