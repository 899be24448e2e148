"""The command that the pages give for the hub is one that its own client takes."""

import shlex

import click
import pages
import pytest
import typer.main
from huggingface_hub.cli import hf

COMMANDS = [
    (page.name, command)
    for page in pages.PAGES
    for command in page.commands
    if command.startswith("hf upload ")
]


def parsed(words):
    """What the client makes of the words; nothing is sent, nothing is run."""
    group = (
        hf.app if isinstance(hf.app, click.Group) else typer.main.get_command(hf.app)
    )
    assert isinstance(group, click.Group)
    with group.make_context("hf", list(words)) as context:
        name, command, rest = group.resolve_command(context, list(words))
        assert command is not None
        return name, command.make_context(name, rest, parent=context).params


def test_the_pages_have_one_for_policies_and_one_for_adapters():
    assert len(COMMANDS) == 2


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_the_client_takes_it(page, command):
    name, params = parsed(shlex.split(command)[1:])
    assert name == "upload"
    assert params["repo_id"].count("/") == 1
    assert params["local_path"] and params["path_in_repo"] == "."


def test_a_flag_that_there_is_not_is_refused():
    with pytest.raises(click.UsageError):
        parsed(["upload", "name/model", "policy", "--privat"])
