"""The table of commands: every one helps itself, and wrong words are answered."""

import importlib
import re
import subprocess
import sys

import pytest

from seal_jax import __main__ as door
from seal_jax.commands import adapt, completion, evaluate, export, generate
from seal_jax.commands.table import COMMANDS
from seal_jax.report import console
from seal_jax.report.commands import agreement, continual, novelty, reliability, select
from seal_jax.runtime import command_line

PARSED = {
    "adapt": adapt,
    "generate": generate,
    "evaluate": evaluate,
    "export": export,
    "report": console,
    "select": select,
    "novelty": novelty,
    "reliability": reliability,
    "agreement": agreement,
    "continual": continual,
    "completion": completion,
}
# absl reads the flags of the others.
OTHERS = {"train", "pretrain"}


def test_every_command_is_here():
    assert {*PARSED, *OTHERS} == set(COMMANDS)


@pytest.mark.parametrize("name", PARSED)
def test_help_has_examples_that_parse(name, ended, monkeypatch):
    status, out, _ = ended(PARSED[name].main, "--help")
    assert status == 0 and out.startswith(f"usage: seal-jax {name} ")
    examples = re.findall(rf"^  seal-jax {name} (.*)$", out, re.M)
    assert len(examples) > 2
    seen = []
    parse = command_line.Parser.parse_args

    def only_parse(self, args=None, namespace=None):
        seen.append(parse(self, args, namespace))
        raise SystemExit(0)

    monkeypatch.setattr(command_line.Parser, "parse_args", only_parse)
    for line in examples:
        words = re.split(r" [(>]| >> ", line)[0]
        argv = [w.strip('"') for w in re.findall(r'"[^"]*"|\S+', words)]
        assert ended(PARSED[name].main, *argv)[0] == 0, line
    assert len(seen) == len(examples)


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("adpat", "did you mean adapt?"),
        ("evalute", "did you mean evaluate?"),
        ("xyz", "one of train, adapt,"),
    ],
)
def test_a_command_that_there_is_not(word, part, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["seal-jax", word])
    monkeypatch.setattr(door.interrupts, "install", lambda: None)
    with pytest.raises(SystemExit) as end:
        door.main()
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.count("\n") == 1
    assert f"error: no command {word!r}" in said and part in said


def test_the_version_is_told(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["seal-jax", "--version"])
    monkeypatch.setattr(door.interrupts, "install", lambda: None)
    door.main()
    assert re.fullmatch(r"seal-jax \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--cuont", "3"], "--cuont; did you mean --count?; see x --help"),
        (["--cuont=3"], "did you mean --count?"),
        (["--zzzz"], "unrecognized arguments: --zzzz; see x"),
        (["--kind", "rde", "--count=3"], "did you mean red?"),
        ([], "required: --count"),
        (["--count="], "--count='' must not be empty; fill it in or leave it out"),
        (["--count=3", "a", ""], "WORD='' must not be empty"),
    ],
)
def test_words_that_there_are_not_are_answered_with_the_nearest(argv, part, capsys):
    parser = command_line.Parser(prog="x")
    parser.add_argument("--count", required=True)
    parser.add_argument("--kind", choices=("red", "blue"))
    parser.add_argument("--note", default="")
    parser.add_argument("words", metavar="WORD", nargs="*")
    with pytest.raises(SystemExit) as end:
        parser.parse_args(argv)
    said = capsys.readouterr().err
    assert end.value.code == 2 and part in said and said.count("\n") == 1
    assert parser.parse_args(["--cou=3", "--kind=red"]).count == "3"


# Completion


def test_every_command_completes_its_own_flags():
    flags = completion.flags()
    assert list(flags) == list(COMMANDS)
    assert {"--model", "--rank", "--out", "--by-line"} <= set(flags["adapt"])
    assert {"--html", "--markdown", "--help"} == set(flags["report"])
    for module, _ in COMMANDS.values():
        assert importlib.util.find_spec(module)


@pytest.mark.parametrize(
    ("words", "want"),
    [
        (["seal-jax", "ev"], ["evaluate"]),
        (["seal-jax", "evaluate", "--gr"], ["--grade"]),
        (["seal-jax", "export", "--o"], ["--out"]),
        (["seal-jax", "adapt", "note"], []),
        (["seal-jax", "nothing", "--o"], []),
    ],
)
def test_bash_completes(words, want):
    text = completion.script("bash", completion.flags())
    line = " ".join(words)
    asked = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _seal_jax"
    done = subprocess.run(
        ["bash", "-c", f'{text}\n{asked}\necho "${{COMPREPLY[@]}}"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == want


def test_the_other_shells_get_the_same_words(ended, refused):
    assert "bashcompinit" in ended(completion.main, "zsh")[1]
    fish = ended(completion.main, "fish")[1]
    assert "__fish_seen_subcommand_from evaluate' -l grade\n" in fish
    refused(completion.main, "fihs", parts=["did you mean fish?"])
