"""A dry run of texts of one's own reads them, and tells what is left out."""

import pytest
import tiny_model

from seal_jax import train
from seal_jax.forecast import work
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import config_rules


@pytest.fixture
def values(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"Text of {name}.")
    config = tiny_model.load_config("own", "tiny")
    config.task.train = str(tmp_path)
    config.ladder = (*config.ladder, "random_kept")
    return config.to_dict()


def test_questions_are_those_of_the_data(values):
    exp = config_rules.build(PassageRounds, values)
    each = work.text(exp)
    assert (each.questions, each.ladder) == (0.0, False)
    assert "2 passages were read, of 0.0 questions each" in each.basis
    assert each.left_out.startswith("without gold answers, left out: the ladder (base,")
    (phase,) = work.phases(exp, each)
    # Ten questions of its own at most to each of two edits of two passages.
    assert (phase.name, phase.adapters, phase.answers) == ("round_1", 4, 40)


def test_wrong_data_is_told_before_a_run(values, tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match=r"a\.txt must have text; fill it in"):
        train.foretell(values, say=lambda line: None)
    values["task"]["train"] = "me/notes"
    each = work.text(config_rules.build(PassageRounds, values))
    assert each.ladder and "no data was read" in each.basis
