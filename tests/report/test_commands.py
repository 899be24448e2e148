"""What the small commands share: their names, and ends of one line or a usage."""

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
@pytest.mark.parametrize("argv, status", [([], 2), (["--help"], 0)])
def test_usage_calls_the_command_by_its_name(name, argv, status, capsys):
    with pytest.raises(SystemExit) as end:
        COMMANDS[name].main(argv)
    assert end.value.code == status
    said = "".join(capsys.readouterr())
    assert said.startswith(f"usage: seal-jax {name} ")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_missing_file_is_said_in_one_line(name, tmp_path, capsys):
    out = ["--out", str(tmp_path / "o.jsonl")] if name == "select" else []
    assert COMMANDS[name].main([str(tmp_path / "gone.json"), *out]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("error: ") and "gone.json: no such file" in said.err
