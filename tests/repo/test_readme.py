"""README.md is one page that begins with the two commands."""

import re

import pages

README = pages.read("README.md")
MOST_BYTES = 10_000


def test_it_is_one_page():
    assert len(README.text.encode()) <= MOST_BYTES


def test_the_two_commands_come_first():
    commands = re.findall(r"^    (\S.*)$", README.text, re.M)
    assert [c.split("#")[0].strip() for c in commands[:2]] == ["make demo", "make test"]


def test_it_shows_the_ladder_that_is_explained():
    """The page of the embedded world has the run from which the ladder is."""
    (ladder,) = (b for b in README.fenced("") if "oracle" in b)
    (run,) = (b for b in pages.read("docs/tiny_world.md").fenced("text") if ladder in b)
    assert "paired difference" in run


def test_its_speed_table_is_the_engines():
    rows = [line for line in README.text.splitlines() if line.startswith("| against")]
    assert len(rows) > 2
    assert [r for r in rows if r not in pages.read("docs/engine.md").text] == []


def test_the_tree_names_folders_that_exist():
    (tree,) = (b for b in README.fenced("") if "seal_jax/ " in b)
    missing, parent = [], ""
    for line in tree.splitlines():
        parts = re.split(r" {2,}", line.strip())[0].split()
        parent = "" if not line.startswith(" ") else "seal_jax/"
        missing += [p for p in parts if not (pages.ROOT / parent / p).exists()]
    assert missing == []
