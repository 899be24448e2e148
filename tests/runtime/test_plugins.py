"""`module:name`: found in the current folder, or refused in one line."""

import subprocess
import sys

import own_code
import pytest

from seal_jax.runtime import plugins

GRADER = ("question", "gold", "answer")


@pytest.fixture
def here(tmp_path, monkeypatch):
    own_code.stand_in(tmp_path, monkeypatch)
    own_code.write(
        tmp_path,
        "plug_mine",
        """
        SIZE = 3
        class Kind: pass
        def good(question, gold, answer, scale=1.0): return scale
        def short(question): return 1
        def mixed(question, answer, gold): return 1
        def late(question, gold, answer):
            import plug_later
            return plug_later.VALUE
        def fails(question, gold, answer):
            return 1 / 0
        """,
    )
    own_code.write(tmp_path, "plug_later", "VALUE = 0.25\n")
    own_code.write(tmp_path, "plug_lost", "x = 1\nimport no_such_thing\n")
    own_code.write(tmp_path, "plug_syntax", "x = 1\ny = = 2\n")
    own_code.write(tmp_path, "plug_ends", "raise SystemExit(3)\n")
    (tmp_path / "plug_pack").mkdir()
    own_code.write(tmp_path / "plug_pack", "inner", "def f(a): return a\n")
    return tmp_path


def test_a_function_of_the_current_folder_is_found(here):
    found = plugins.function("grade.name", "plug_mine:good", GRADER)
    assert found("q", "g", "a") == 1.0
    assert plugins.function("k", "plug_pack.inner:f", ("a",))(4) == 4
    # What it imports only when it is called is found then, too.
    late = plugins.function("k", "plug_mine:late", GRADER)
    assert plugins.call("k", "plug_mine:late", late, "q", "g", "a") == 0.25


REFUSED = {
    "plug_mine:god": "plug_mine has no god; did you mean good?",
    "plug_mien:good": "no module plug_mien in the current folder",
    "plug_mine.py:good": "must be module:name, with dots and without .py, such as "
    "'plug_mine:good'",
    "plug_pack/inner.py:f": "such as 'plug_pack.inner:f'",
    "plug_mine:": "must be module:name",
    ":good": "must be module:name",
    "plug_mine:good:x": "must be module:name",
    "plug_pack.iner:f": "did you mean",
    "plug_lost:x": "plug_lost line 2: ModuleNotFoundError: No module named 'no_such",
    "plug_syntax:x": "plug_syntax.py line 2: SyntaxError: invalid syntax",
    "plug_ends:x": "plug_ends line 1: SystemExit: 3",
    "plug_mine:SIZE": "must be a function, and is 3",
    "plug_mine:Kind": "must be a function, and is <class",
    "plug_mine:mixed": "is called with (question, gold, answer), in this order",
    "plug_mine:short": "must take (question, gold, answer) and takes (question)",
    "os:system": "os is a module of Python's own",
    "builtins:eval": "builtins is a module of Python's own",
    "subprocess:call": "subprocess is a module of Python's own",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_line(here, text):
    with pytest.raises(ValueError) as caught:
        plugins.function("grade.name", text, GRADER)
    message = str(caught.value)
    assert message.startswith(f"grade.name='{text}'") and "\n" not in message
    if text != "plug_pack.iner:f":
        assert REFUSED[text] in message


NAMES = ("recall", "exact")


@pytest.mark.parametrize("text", ["m:f", "a.b_1:C", "no_such_module:x", "recall"])
def test_a_name_is_one_of_the_packages_or_has_the_form(text):
    plugins.one_of("grade.name", text, NAMES)
    assert plugins.is_named(text) == (text != "recall")
    assert text in plugins.Names(NAMES)


@pytest.mark.parametrize(
    "text",
    [
        *("{'a': 1}", "a: b", "m:", ":f", ":", "m:f:g", "m:f g", "m:1", "1:f"),
        *("a..b:f", "http://x/y", "C:\\x", "m:f\n", "\x00:f", 3, None, b"m:f"),
    ],
)
def test_a_colon_alone_makes_no_name(text):
    with pytest.raises(ValueError) as caught:
        plugins.one_of("grade.name", text, NAMES)
    said = str(caught.value)
    assert said.startswith("grade.name=") and "\n" not in said
    assert "must be one of ('recall', 'exact')" in said and "module:name" in said
    assert not plugins.is_named(text) and text not in plugins.Names(NAMES)


@pytest.mark.parametrize("text", ["a/b.py:f", "./b.py:f", "b.py:f"])
def test_a_path_is_told_how_it_is_named(text):
    with pytest.raises(ValueError, match=r"such as '(a\.)?b:f'; correct it"):
        plugins.one_of("grade.name", text, NAMES)
    # A flag lets it through to what says so with the flag's name.
    assert text in plugins.Names(NAMES) and not plugins.is_named(text)


def test_what_the_users_code_raises_is_told_with_its_place(here):
    text = "plug_mine:fails"
    found = plugins.function("grade.name", text, GRADER)
    with pytest.raises(
        ValueError, match="plug_mine line 11: ZeroDivisionError"
    ) as told:
        plugins.call("grade.name", text, found, "q", "g", "a")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("value", ["1", 1.5, -0.1, float("nan"), [1], object()])
def test_what_is_no_number_within_bounds_is_refused(value):
    with pytest.raises(ValueError, match="must give a number from 0 to 1, or None"):
        plugins.number("grade.name", "m:f", value, 0.0, 1.0)
    assert plugins.number("k", "m:f", None, 0.0, 1.0) is None
    assert plugins.number("k", "m:f", True, 0.0, 1.0) == 1.0


@pytest.mark.parametrize("way", ["command", "module"])
def test_both_ways_to_start_a_command_look_in_the_current_folder(way, here, child_env):
    """An installed command does not have the current folder on its path."""
    (here / "data.json").write_text("[]")
    start = (
        ["-m", "seal_jax"]
        if way == "module"
        else ["-P", "-c", "from seal_jax.__main__ import main; main()"]
    )
    arguments = ["evaluate", "embedded:tiny", "--data=data.json"]
    done = subprocess.run(
        [sys.executable, *start, *arguments, "--grade=plug_mine:god"],
        env=child_env,
        cwd=here,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "plug_mine has no god; did you mean good?" in done.stderr


def test_a_class_is_known_by_the_file_that_it_is_written_in(here):
    kind = plugins.find("task.name", "plug_mine:Kind")
    text = plugins.source(type("Wrapped", (kind,), {"__module__": "seal_jax.tasks"}))
    assert text == (here / "plug_mine.py").read_text()
    assert plugins.source(plugins.Names) == plugins.source(dict) == ""
