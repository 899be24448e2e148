"""The command's edge: every kind of bad input ends in one line, before any work."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import tiny_model

from seal_jax import train
from seal_jax.generation import generate, policies
from seal_jax.runtime import checkpoint, files, records
from seal_jax.training import packed


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(autouse=True)
def no_work(monkeypatch):
    """Nothing here gets as far as weights, let alone a compiled program."""

    def never(*args, **kwargs):
        raise AssertionError("bad input was noticed too late")

    for module, name in ((policies, "load"), (packed, "train"), (generate, "run")):
        monkeypatch.setattr(module, name, never)


def refused(values, workdir, parts, error=(ValueError, OSError)):
    with pytest.raises(error) as caught:
        train.run(values, workdir)
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == [], message
    # The workdir stays free for the corrected command.
    assert not (pathlib.Path(workdir) / "config.json").exists()


def record(title="Karsk", context="Ada Quill cooks porridge.", questions=None):
    if questions is None:
        questions = [{"question": "What does Ada Quill cook?", "answer": "porridge"}]
    return {"title": title, "context": context, "questions": questions}


def change(values, changes):
    """Sets `a__b` to any value in place, of a wrong type or unknown as it may be."""
    for dotted, value in changes.items():
        *groups, key = dotted.split("__")
        at = values
        for group in groups:
            at = at[group]
        at[key] = value


@pytest.fixture
def squad(tmp_path, model_path):
    """Values of an experiment on records in SEAL's format."""

    def make(records, text=None, **changes):
        path = tmp_path / "passages.json"
        path.write_text(json.dumps(records) if text is None else text)
        return tiny_model.values(
            model_path,
            task__name="squad",
            task__train=str(path),
            task__heldout=str(path),
            task__heldout_start=1,
            task__forward_share=0.0,
            scale__rounds=1,
            scale__passages=1,
            scale__heldout_passages=1,
            ladder=("base",),
            **changes,
        )

    return make


CONFIG = {
    "unknown key": ({"inner__lora__rnak": 3}, ["config.inner.lora.rnak", "rank?"]),
    "wrong type": ({"scale": 3}, ["config.scale=3"]),
    "model directory": (
        {"model__path": "/no/such/model"},
        ["model='/no/such/model'", "directory", "embedded:tiny"],
    ),
    "hub name without network": (
        {"model__path": "Qwen/Qwen2.5-7B"},
        ["model='Qwen/Qwen2.5-7B'", "local model directory", "embedded:tiny"],
    ),
    "prompt file": (
        {"propose__prompt": "no/such/prompt.txt"},
        ["propose prompt 'no/such/prompt.txt'", "no such file"],
    ),
    "prompt name": ({"answer__prompt": "terse"}, ["answer prompt 'terse'", "concise"]),
    "rank": (
        {"inner__lora__rank": 99},
        ["inner.lora.rank=99", "must lie in 1..", "narrowest"],
    ),
    "imitation rank": (
        {"imitate__lora__rank": 0},
        ["imitate.lora.rank=0", "at least 1"],
    ),
    "target": (
        {"inner__lora__targets": ("q_proj", "qkv")},
        ["inner.lora.targets=['q_proj', 'qkv']", "'v_proj'"],
    ),
    "no target": ({"imitate__lora__targets": ()}, ["imitate.lora.targets=[]"]),
    "no room to write": (
        {"propose__max_tokens": 250},
        ["its self-edit prompt takes", "propose.max_tokens=250"],
    ),
    "no room to answer": (
        {"answer__max_tokens": 250},
        ["a question prompt takes", "answer.max_tokens=250"],
    ),
    "rows": (
        {"inner__row_tokens": 32},
        ["its training line takes", "32 fit", "inner.row_tokens"],
    ),
    "rows without room for pads": (
        {
            "inner__loss__mode": "reference",
            "inner__loss__pad_samples": -1,
            "inner__loss__pad_to": 200,
        },
        ["inner.row_tokens=96", "use 200"],
    ),
    "kernel": ({"model__kernel": "cuda"}, ["model.kernel='cuda'", "'xla'"]),
    "slots without memory": (
        {"inner__slots": 2**24, "inner__active": 2},
        ["inner.slots=16777216", "can be used", "fits"],
    ),
    "endpoint": (
        {
            "grade__name": "judge",
            "grade__judge__base_url": "http://127.0.0.1:9/v1",
            "grade__judge__timeout_s": 5.0,
        },
        ["http://127.0.0.1:9/v1", "start the server"],
    ),
}


@pytest.mark.parametrize("case", CONFIG)
def test_a_config_that_cannot_run_is_refused(case, model_path, tmp_path):
    changes, parts = CONFIG[case]
    values = tiny_model.values(model_path)
    change(values, changes)
    refused(values, tmp_path / "run", parts, (ValueError, OSError, RuntimeError))


def test_a_model_directory_without_a_tokenizer(model_path, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(model_path, copy)
    for file in copy.glob("tokenizer*"):
        file.unlink()
    refused(tiny_model.values(copy), tmp_path / "run", [str(copy), "no tokenizer"])


def test_a_model_directory_without_weights(model_path, tmp_path, monkeypatch):
    monkeypatch.undo()
    copy = tmp_path / "model"
    shutil.copytree(model_path, copy)
    for file in copy.glob("*.safetensors"):
        file.unlink()
    refused(tiny_model.values(copy), tmp_path / "run", [str(copy), "safetensors"])


def test_squad_debug_without_data_names_the_variable(tmp_path, monkeypatch):
    monkeypatch.delenv("SEAL_DATA", raising=False)
    values = tiny_model.load_config("squad", "debug").to_dict()
    refused(values, tmp_path / "run", ["$SEAL_DATA", "no such file", "tiny"])


OTHER = record("Marl", "Boris Fenn plays cello.")
DATA = {
    "no file": (None, {"task__train": "/no/such.json"}, ["'/no/such.json'", "no such"]),
    "not json": ("[{", {}, ["passages.json", "must be one JSON value"]),
    "empty": ([], {}, ["passages.json", "at least one passage"]),
    "no context": (
        [{"title": "Karsk", "questions": []}],
        {},
        ["record 0", "context is missing"],
    ),
    "no question": (
        [record(questions=[]), record("Marl", "Marl.", [])],
        {},
        ["needs questions with gold answers", "self_asked"],
    ),
    "too few": ([record(), OTHER], {"scale__passages": 5}, ["5 passages", "the 2"]),
    "in both sets": (
        [record(), OTHER],
        {"task__heldout_start": 0},
        ["held-out passages are training passages", "task.heldout_start"],
    ),
    "too long": (
        [record(context="Ada Quill " * 60), record("Marl", "Boris Fenn " * 60)],
        {},
        ["its training line takes", "96 fit"],
    ),
    "longer than the context": (
        [record(context="Ada Quill " * 200), record("Marl", "Boris Fenn " * 200)],
        {"inner__row_tokens": 512, "inner__step_tokens": 512},
        ["its training line takes", "256 fit", "leave it out"],
    ),
    "oracle": (
        [record(), OTHER],
        {"ladder": ("base", "oracle")},
        ["'oracle'", "task.name='squad'", "leave it out"],
    ),
    "forward share": (
        [record(), OTHER],
        {"task__forward_share": 0.5},
        ["task.forward_share=0.5", "'world'"],
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_data_that_cannot_be_used_is_refused(case, squad, tmp_path):
    records, changes, parts = DATA[case]
    text = records if isinstance(records, str) else None
    values = squad(records, text)
    change(values, changes)
    refused(values, tmp_path / "run", parts)


def test_good_data_gets_as_far_as_the_weights(squad, tmp_path):
    with pytest.raises(AssertionError, match="noticed too late"):
        train.run(squad([record(), OTHER]), tmp_path / "run")


def test_a_workdir_that_is_a_file(model_path, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="a workdir must be a directory"):
        train.run(tiny_model.values(model_path), tmp_path / "run")


def test_a_full_disk_is_one_line(model_path, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(policies, "load", lambda *args, **kwargs: None)

    def full(path, value):
        raise files.DiskFullError(28, path)

    monkeypatch.setattr(records, "write_json", full)
    with pytest.raises(OSError) as caught:
        train.run(tiny_model.values(model_path), tmp_path / "run")
    assert "cannot be written" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", b"run\xff"])
def test_a_workdir_that_cannot_be_named(name, model_path, tmp_path):
    workdir = os.fsdecode(os.fsencode(tmp_path) + b"/" + name) if name else name
    with pytest.raises(ValueError, match=r"must (name|be)") as caught:
        train.run(tiny_model.values(model_path), workdir)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_no_checkpoint_is_found_before_the_weights(
    model_path, tmp_path, monkeypatch
):
    def full(directory, step, tree, meta):
        raise files.DiskFullError(28, directory)

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(files.DiskFullError, match="free some space"):
        train.run(tiny_model.values(model_path), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


# The command itself


def command(child_env, *args, timeout=600):
    return subprocess.run(
        [sys.executable, "-m", "seal_jax.train", *args],
        capture_output=True,
        text=True,
        env=child_env,
        cwd=tiny_model.ROOT,
        timeout=timeout,
    )


TINY = "--config=configs/tiny.py"
FLAGS = {
    "kernel": ([TINY, "--config.model.kernel=mosaic_gpu"], ["'mosaic_gpu'", "cuda"]),
    "unknown key": ([TINY, "--config.inner.lora.rnak=3"], ["no such key", '"rank"']),
    "wrong type": ([TINY, "--config.seed=many"], ["--config.seed=many"]),
    "no config file": (["--config=configs/no.py"], ["configs/no.py"]),
    "no experiment": (["--config=tinny"], ["did you mean --config=tiny?"]),
    "variant": (["--config=configs/tiny.py:dbug"], ["dbug", "'debug'"]),
    "argument": ([TINY, "extra"], ["unexpected arguments ['extra']"]),
    "unknown flag": ([TINY, "--wokdir=x"], ["wokdir"]),
    "no model": ([TINY, "--config.model.path=/no/such"], ["model='/no/such'"]),
}


@pytest.mark.parametrize("case", FLAGS)
def test_a_wrong_command_line_is_one_line_on_stderr(case, child_env, tmp_path):
    args, parts = FLAGS[case]
    done = command(child_env, *args, f"--workdir={tmp_path / 'run'}")
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert [part for part in parts if part not in done.stderr] == [], done.stderr
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_missing_workdir_is_one_line_too(child_env):
    done = command(child_env, TINY)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1 and "--workdir" in done.stderr


def test_help_says_how_to_run(child_env):
    done = command(child_env, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "python -m seal_jax.train --config=configs/tiny.py" in done.stdout
    assert "--workdir" in done.stdout
