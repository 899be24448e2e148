"""Config files that raise, and keys that a config does not have: one line each."""

import pytest
from absl import flags

from seal_jax.runtime import config_file

GOOD = """
from ml_collections import ConfigDict

def get_config(arg=None):
    if arg == "no":
        raise ValueError(f"{__file__}:no: no such variant; use none")
    return ConfigDict(
        dict(seed=0, inner=dict(lora=dict(rank=4, targets=("a", "b"))), grade=dict())
    )
"""

# The text of a file, and what is said after its name.
FILES = {
    "syntax": ("def get_config(:", " line 1: SyntaxError: invalid syntax"),
    "import": ("import no_such_module", " line 1: ModuleNotFoundError: No module"),
    "name": ("def get_config():\n  return x", " line 2: NameError: name 'x'"),
    "top level": ("1 / 0", " line 1: ZeroDivisionError"),
    "assertion": ("def get_config():\n  assert 0", " line 2: AssertionError;"),
    "lines": ("def get_config():\n  raise ValueError('a\\nb')", " line 2: a b;"),
    "nothing": ("x = 1", ": must have a function get_config"),
    "no function": ("get_config = 3", ": must have a function get_config"),
    "arguments": ("def get_config(a, b): pass", ": TypeError: get_config() missing"),
    "exit": ("import sys\ndef get_config():\n  sys.exit(3)", " line 3: SystemExit: 3"),
    "recursion": ("def get_config():\n  return get_config()", ": RecursionError"),
    "None": ("def get_config(): return None", ": get_config must return a ConfigDict"),
    "dict": ("def get_config(): return {}", ": get_config must return a ConfigDict"),
    "key": (f"{GOOD}\ndef get_config():\n  ConfigDict().x", " line 12: AttributeError"),
    "memory": ("def get_config(): raise MemoryError", " line 1: MemoryError"),
    "NUL": ("x = 1\0", ": SyntaxError"),
}


def refused(argv, kind=ValueError):
    with pytest.raises(kind) as caught:
        config_file.check(["train", *argv])
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    assert "; " in message
    return message


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_raises_is_named_with_its_line(case, tmp_path):
    text, said = FILES[case]
    path = tmp_path / "c.py"
    path.write_text(text)
    message = refused([f"--config={path}", "--workdir=x"])
    assert message.startswith(f"{path}{said}"), message


def test_ctrl_c_in_a_file_is_no_error_of_its(tmp_path):
    path = tmp_path / "c.py"
    path.write_text("def get_config(): raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        config_file.load(str(path))


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.py"
    path.write_text(GOOD)
    return str(path)


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        ([], ["--config=FILE", "squad", "--config=tiny"]),
        (["--config="], ["--config=FILE"]),
        (["--config=GOOD"], ["--workdir=FOLDER"]),
        (["--config=GOOD", "--workdir="], ["--workdir=FOLDER"]),
        (["--config=GOOD:no", "--workdir=x"], ["GOOD:no: no such variant"]),
        (
            ["--config=GOOD", "--workdir=x", "--config.inner.lora.rnak=3"],
            ['--config.inner.lora.rnak: no such key; did you mean "rank"'],
        ),
        (
            ["--config=GOOD", "--workdir=x", "--config.iner.lora.rank=3"],
            ["did you mean", "--config.inner.lora.rank?"],
        ),
        (
            ["--workdir", "x", "--config", "GOOD", "--config.grade.judge.model", "m"],
            ["GOOD has no group grade.judge; add it to the file", "configs/squad.py"],
        ),
        (
            ["--config=GOOD", "--workdir=x", "--config.inner=3"],
            ["--config.inner: is a group of keys", "--config.inner.lora"],
        ),
        (
            ["--config=GOOD", "--workdir=x", "--config.seed.x=3"],
            ["seed is 0 and has no keys"],
        ),
        (
            ["--config=GOOD", "--workdir=x", "--config.inner.lora.targets[2]=c"],
            ["inner.lora.targets has 2 entries"],
        ),
        (["--config=GOOD", "--workdir=x", "--config.=3"], ["must be a key"]),
        (["--config=GOOD", "--workdir=x", "--config.a b=3"], ["must be a key"]),
    ],
)
def test_a_wrong_command_line_is_one_line(argv, parts, good):
    message = refused([a.replace("GOOD", good) for a in argv])
    assert [p for p in parts if p.replace("GOOD", good) not in message] == [], message


@pytest.mark.parametrize("name", ["no.py", "x" * 5000, "a\0b", "/", "."])
def test_what_is_no_file_is_said_so(name):
    message = refused([f"--config={name}", "--workdir=x"], FileNotFoundError)
    assert "no such file; give" in message


def test_a_good_command_line_passes(good):
    config_file.check(
        ["train", f"--config={good}", "--workdir=x", "--config.inner.lora.rank=3"]
    )
    assert config_file.load(good).inner.lora.rank == 4


@pytest.mark.parametrize(
    "said, ours",
    [
        ("--config.seed=1.5: invalid literal for int() with x: '1'", "a whole number"),
        (
            "--config.x=a: ('Non-boolean argument to boolean flag', 'a')",
            "True or False",
        ),
    ],
)
def test_what_absl_says_is_put_into_our_words(said, ours):
    begin, _, _ = said.partition(": ")
    assert config_file.of_flags(flags.Error(f"flag {said}")) == (
        f"{begin}: must be {ours}; correct it, or see --help"
    )
