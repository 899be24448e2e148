"""What the small commands share: their names, and ends of one line or a usage."""

import pathlib
import re

import pytest

from seal_jax.report import console
from seal_jax.report.commands import agreement, continual, novelty, reliability, select

COMMANDS = {
    "report": console,
    "select": select,
    "novelty": novelty,
    "reliability": reliability,
    "agreement": agreement,
    "continual": continual,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_usage_calls_the_command_by_its_name(name, capsys):
    with pytest.raises(SystemExit) as end:
        COMMANDS[name].main(["--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: seal-jax {name} ")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_argument_is_refused_in_one_line(name, capsys):
    for argv in ([], ["x", "--nope"], ["x", "--a\nb=1"]):
        assert_refused(COMMANDS[name], argv, f"; see seal-jax {name} --help\n", capsys)


def assert_refused(command, argv, part, capsys):
    with pytest.raises(SystemExit) as end:
        command.main(argv)
    said = capsys.readouterr()
    assert end.value.code == 2 and said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1, said.err
    assert part in said.err, said.err


# Flags that take numbers, with the largest and, for fractions, what is too near to 0.
NUMBERS = {
    ("select", "--k-best"): 1_000_000,
    ("select", "--seed"): 2**32 - 1,
    ("select", "--threshold"): 1.0,
    ("select", "--bonus"): 100.0,
    ("select", "--max-copied"): 1.0,
    ("select", "--max-overlap"): 1.0,
    ("select", "--digits"): 17,
    ("novelty", "--first"): 1_000_000,
    ("reliability", "--draws"): 100_000,
}


@pytest.mark.parametrize(("name", "flag"), NUMBERS)
def test_a_number_out_of_its_bounds_is_refused_in_one_line(name, flag, capsys):
    most = NUMBERS[name, flag]
    wrong = ["-1e9", "1e999", "nan", "inf", "x", "", "9" * 5000, "1e308", f"{2**63}"]
    for text in (*wrong, str(most + 1)):
        out = ["--out", "o"] if name == "select" else []
        if text in ("", "x"):
            part = f"{flag}='{text}' must be a "
        elif isinstance(most, float):
            part = f"{flag}={float(text)} must be "
        elif text.isdigit():
            part = f"{flag}={text[:50]}" if len(text) < 50 else f"{flag}='99"
        else:
            part = f"{flag}='{text}' must be a whole number"
        assert_refused(COMMANDS[name], ["r", *out, f"{flag}={text}"], part, capsys)


def test_every_flag_that_takes_a_number_is_in_the_table():
    source = pathlib.Path(console.__file__).parent
    text = "".join(path.read_text() for path in sorted(source.rglob("*.py")))
    flags = re.findall(r'add_argument\(\s*"(--[a-z-]+)",[^()]*type=', text)
    assert sorted(flags) == sorted(flag for _, flag in NUMBERS)
    assert not re.search(r"type=(int|float)\b", text)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_missing_file_is_said_in_one_line(name, tmp_path, capsys):
    out = ["--out", str(tmp_path / "o.jsonl")] if name == "select" else []
    assert COMMANDS[name].main([str(tmp_path / "gone.json"), *out]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("error: ") and "gone.json: no such file" in said.err
