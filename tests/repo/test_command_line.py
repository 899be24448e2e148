"""The table of commands: what no module of a command's own can say."""

import runpy
import sys

import pytest

from seal_jax import __main__ as commands


def test_an_interrupted_command_ends_in_one_line(monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(runpy, "run_module", interrupted)
    monkeypatch.setattr(sys, "argv", ["seal-jax", "train"])
    monkeypatch.delenv("SEAL_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as ended:
        commands.main()
    assert ended.value.code == commands.INTERRUPTED
    err = capsys.readouterr().err
    assert err == "stopped; a run continues with the same command\n"
