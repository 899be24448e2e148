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


MISSING = [
    (
        "own",
        "tiny",
        "task__train",
        "nots/",
        r"data='nots/': no such file; did you .*'no",
    ),
    (
        "own",
        "tiny",
        "task__train",
        "notes/b.txt",
        r"'notes/b\.txt': no such file; did ",
    ),
    (
        "own",
        "tiny",
        "task__heldout",
        "me/trian.CSV",
        r"'me/trian\.CSV': no such file; g",
    ),
    ("own", "tiny", "task__train", "", r"task\.train and task\.heldout must name your"),
    (
        "squad",
        None,
        "task__train",
        "me/trian.json",
        r"'me/trian\.json': no such file; g",
    ),
    ("squad_cpt", None, "task__train", "me/a.jsonl", r"a\.jsonl': no such file; give"),
    ("own", "tiny", "propose__prompt", "nofile.txt", r"propose prompt '?nofile\.txt"),
    ("tiny", "debug", "answer__prompt", "nofile.txt", r"answer prompt '?nofile\.txt"),
    (
        "continual",
        "tiny",
        "propose__prompt",
        "implicatons",
        r"propose prompt .*must be",
    ),
    ("arc", "debug", "propose__prompt", "nofile.txt", r"propose prompt '?nofile\.txt"),
    ("arc", "debug", "answer__prompt", "nofile.txt", r"prompt '?nofile\.txt"),
]


@pytest.mark.parametrize(("name", "arg", "key", "value", "rule"), MISSING)
def test_data_and_prompts_that_are_not_there_are_told(
    name, arg, key, value, rule, tmp_path, monkeypatch
):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("Text of a.")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("seal_jax.tasks.hub.rows", lambda *_, **__: pytest.fail("hub"))
    values = tiny_model.load_config(name, arg).to_dict()
    if name == "own":
        values["task"]["train"] = "notes"
    group, field = key.split("__")
    values[group][field] = value
    said: list[str] = []
    with pytest.raises((ValueError, FileNotFoundError), match=rule) as caught:
        train.foretell(values, say=said.append)
    assert "\n" not in str(caught.value)
    assert said == []


def test_a_prompt_of_ones_own_is_read(values, tmp_path):
    path = tmp_path / "mine.md"
    values["propose"]["prompt"] = str(path)
    path.write_text("Write about {title}:")
    with pytest.raises(ValueError, match=r"must contain \{title\} and \{passage"):
        train.foretell(values, say=lambda line: None)
