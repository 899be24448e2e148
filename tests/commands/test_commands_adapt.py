"""`seal-jax adapt`: the adapters of the API, by name, and going on where it was."""

import shutil

import jax
import numpy as np
import pytest
from short_texts import TEXTS

import seal_jax as seal
from seal_jax.api import training
from seal_jax.commands import adapt

FLAGS = ("--rank=4", "--learning-rate=0.05", "--epochs=3")


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, text in zip("abc", TEXTS, strict=True):
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.fixture
def never(monkeypatch):
    """Nothing is trained."""

    def fail(*args, **kwargs):
        raise AssertionError("trained")

    monkeypatch.setattr(training.pools, "each", fail)


def test_each_text_has_its_adapter_and_the_command_goes_on(
    texts, folder, model, adapters, tmp_path, ended, refused, monkeypatch
):
    out = tmp_path / "out"
    command = [adapt.main, texts, "--model", folder, "--out", out, *FLAGS]
    status, said, _ = ended(*command)
    assert (status, said) == (0, f"{out}: 3 adapters, 3 of them new\n")
    read = seal.load_peft([out / name for name in "abc"], model=model)
    for one, other in zip(
        jax.tree.leaves(read.tree), jax.tree.leaves(adapters.tree), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=2e-4)
    before = (out / "a" / "adapter_model.safetensors").stat().st_mtime_ns
    # One is lost, one is new.
    shutil.rmtree(out / "b")
    (texts / "d.txt").write_text("Rye is old.")
    trained = []
    real = training.lines.encode
    monkeypatch.setattr(
        training.lines, "encode", lambda p, t: trained.extend(t) or real(p, t)
    )
    assert ended(*command)[:2] == (0, f"{out}: 4 adapters, 2 of them new\n")
    assert trained == [TEXTS[1], "Rye is old."]
    assert (out / "a" / "adapter_model.safetensors").stat().st_mtime_ns == before
    assert ended(*command)[:2] == (0, f"{out}: 4 adapters, 0 of them new\n")
    # Of other settings or texts it is another folder.
    refused(*command, "--epochs=4", parts=["epochs=3, these would have 4", "--out"])
    (texts / "a.txt").write_text("Ada is old.")
    refused(*command, parts=["'a' there was trained on another text"])


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--targets=q_prj"], ["--targets=", "did you mean 'q_proj'?"]),
        (["--rank=17"], ["--rank=17 must lie in 1..16"]),
        (["--targets=q_proj,q_proj"], ["error: --targets=", "name each once"]),
        (["--out="], ["--out='' must not be empty"]),
        (["--rank=x"], ["--rank='x' must be a whole number"]),
        (["--rnak=3"], ["--rnak=3; did you mean --rank?; see seal-jax adapt --help"]),
        (["--schedule=linaer"], ["did you mean linear?"]),
        (["--learning-rate=0"], ["--learning-rate=0.0 must be at least 1e-12"]),
        (["--model=/no/such"], ["model='/no/such'"]),
    ],
)
def test_wrong_flags_are_refused_in_one_line(
    flags, parts, texts, folder, tmp_path, refused, never
):
    command = (adapt.main, texts, "--model", folder, "--out", tmp_path / "o", *flags)
    refused(*command, parts=parts)
    assert not list(tmp_path.glob("o/*"))


def test_texts_that_cannot_be_learned_are_told_by_their_names(
    texts, folder, tmp_path, refused, never
):
    (texts / "b.txt").write_text("long " * 60)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("")
    for more, out, parts in [
        ([], "out", ["error: b has 300 tokens, the model takes 256", "--by-line"]),
        ([tmp_path / "gone.txt"], "out", ["gone.txt: no such file"]),
        ([], "mine", ["mine: holds something else", "another folder"]),
        ([], "mine/notes", ["notes: holds something else"]),
    ]:
        command = (adapt.main, texts, *more, "--model", folder)
        refused(*command, "--out", tmp_path / out, parts=parts)


def test_what_is_not_finite_is_named_and_not_written(
    texts, folder, tmp_path, ended, monkeypatch, adapters
):
    import dataclasses

    found = list(enumerate(adapters))
    found[1] = 1, dataclasses.replace(adapters[1], finite=False)
    monkeypatch.setattr(training, "iter_adapters", lambda *a, **k: iter(found))
    out = tmp_path / "out"
    status, said, err = ended(adapt.main, texts, "--model", folder, "--out", out)
    assert (status, said) == (2, f"{out}: 2 adapters, 2 of them new\n")
    assert "1 of 3 adapters did not stay finite" in err and "'b'" in err
    assert sorted(p.name for p in out.iterdir()) == ["a", "adapt.json", "c"]
