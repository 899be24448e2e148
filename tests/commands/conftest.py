"""A tiny model and its adapters, for the tests of the commands."""

import io
import json
import sys

import golden_models
import pytest
from short_texts import TEXTS

import seal_jax as seal


@pytest.fixture(scope="session")
def folder():
    return str(golden_models.GOLDEN / "qwen2" / "model")


@pytest.fixture(scope="session")
def model(folder):
    return seal.load(folder)


@pytest.fixture(scope="session")
def adapters(model):
    return seal.train_adapters(
        model, TEXTS, rank=4, learning_rate=0.05, epochs=3, progress=False
    )


@pytest.fixture(scope="session")
def saved(adapters, tmp_path_factory):
    """The folder of these adapters."""
    path = tmp_path_factory.mktemp("saved") / "adapters"
    adapters.save_peft(path)
    return str(path)


@pytest.fixture
def ended(capsys):
    """Runs a command's main; its status and what it wrote to both streams."""

    def run(main, *argv):
        try:
            status = main(list(map(str, argv)))
        except SystemExit as end:
            status = end.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def refused(ended):
    """Runs it, and holds its end to one line with these parts and status 2."""

    def run(main, *argv, parts):
        status, out, err = ended(main, *argv)
        assert (status, out) == (2, "")
        assert err.startswith("error: ") and err.count("\n") == 1, err
        assert [part for part in parts if part not in err] == [], err

    return run


@pytest.fixture
def typed(monkeypatch):
    """Lines on standard input."""

    def put(*lines):
        text = "".join(f"{line}\n" for line in lines)
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    return put


@pytest.fixture
def rows():
    def read(path):
        return [json.loads(line) for line in path.read_text().splitlines()]

    return read
