"""Experiments that come with the package are found by name, from any folder."""

import shutil

import pytest
from absl import flags
from ml_collections import config_flags

from seal_jax.runtime import config_file, shipped


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_every_experiment_has_its_name(root):
    files = {path.stem for path in (root / "configs").glob("*.py")}
    assert shipped.names(pretrains=True) == ["tiny_pretrain"]
    named = {*shipped.names(), "tiny_pretrain"}
    assert named == files >= {"tiny", "squad", "arc", "continual"}


def test_a_clone_and_a_wheel_have_them_in_their_own_places(
    root, tmp_path, elsewhere, monkeypatch
):
    assert shipped.folder() == root / "configs"
    package = tmp_path / "site-packages" / "seal_jax"
    monkeypatch.setattr(shipped, "_PACKAGE", package)
    with pytest.raises(FileNotFoundError, match="install it again, or give an exp"):
        shipped.find("tiny")
    shutil.copytree(root / "configs", package / "configs")
    assert shipped.find("tiny") == str(package / "configs" / "tiny.py")
    # A folder that happens to lie beside the package is not asked.
    (package.parent / "configs").mkdir()
    (package.parent / "configs" / "tiny.py").touch()
    assert shipped.folder() == package / "configs"


@pytest.mark.parametrize(
    "named, rounds",
    [("tiny", 2), ("tiny:rounds", 8), ("squad:small", 1), ("arc:tiny", 1)],
)
def test_names_and_their_variants_load_from_any_folder(named, rounds, elsewhere):
    assert config_file.load(named).scale.rounds == rounds


def test_a_config_of_pretraining_is_not_offered_to_train(elsewhere):
    def said(argv, **kw):
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            config_file.check(["x", *argv, "--workdir=w"], **kw)
        return str(caught.value)

    for named in ("tiny_pretrain", "tiny_pretrain:arc", "configs/tiny_pretrain.py"):
        assert f"--config={named}: belongs to the command pretrain; run" in said(
            [f"--config={named}"]
        )
    for argv in ([], ["--config=tiny_pretran"], ["--config=zzzz"]):
        assert "tiny_pretrain" not in said(argv)
        assert "--config=tiny_pretrain" in said(argv, pretrains=True)
    config_file.check(["x", "--config=tiny_pretrain", "--workdir=w"], pretrains=True)


def test_a_file_goes_before_a_name(elsewhere):
    (elsewhere / "tiny").write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n  return ConfigDict(dict(mine=1))\n"
    )
    assert config_file.load("tiny").mine == 1


@pytest.mark.parametrize(
    "named, parts",
    [
        ("tinny", ["--config=tinny: no such file; did you mean --config=tiny"]),
        ("squadcpt", ["did you mean --config=squad_cpt or --config=squad?"]),
        ("configs/tiny.py", ["configs/tiny.py: no such file", "--config=tiny"]),
        (
            "mine/zzzz.py",
            ["file, or one of arc, continual, deploy, ", ", tiny, as --config=tiny"],
        ),
        ("tiny:seed", ["tiny:seed: the variants are", "'seeds'"]),
        ("continual:x", ["continual:x: the variants are"]),
    ],
)
def test_an_unknown_name_is_one_line_with_the_nearest(named, parts, elsewhere):
    with pytest.raises((FileNotFoundError, ValueError)) as caught:
        config_file.load(named)
    said = str(caught.value)
    assert "\n" not in said and len(said) < 300
    assert [part for part in parts if part not in said] == [], said


# Of ml_collections, which loads config files by it.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize("words", [["--config=tiny"], ["--config", "tiny"]])
def test_absl_gets_the_path(words, elsewhere, monkeypatch):
    argv = ["train", *words, "--workdir", "w", "--config.seed=7", "--", "--config=x"]
    holder = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", holder)
    flags.DEFINE_string("workdir", None, "", flag_values=holder)
    config = config_flags.DEFINE_config_file(
        "config", flag_values=holder, sys_argv=argv
    )
    assert config_file.parse(argv) == ["train", "--config=x"]
    assert (config.value.seed, config.value.scale.rounds) == (7, 2)


def test_a_message_gives_a_path_that_can_be_opened(root, elsewhere, monkeypatch):
    assert shipped.place("squad") == str(root / "configs" / "squad.py")
    monkeypatch.chdir(root)
    assert shipped.place("squad") == "configs/squad.py"
