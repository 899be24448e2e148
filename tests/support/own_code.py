"""Modules of a user's own, in a folder that a test stands in."""

import pathlib
import sys
import textwrap

import pytest


def write(folder: pathlib.Path, name: str, code: str) -> str:
    """A module's file; returns its name."""
    (folder / f"{name}.py").write_text(textwrap.dedent(code), encoding="utf-8")
    return name


def stand_in(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes it the current folder, without a trace of it after the test."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
