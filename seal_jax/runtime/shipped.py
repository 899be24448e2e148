"""The experiments that come with the package: `tiny`, `squad`, `arc`, ...

In a clone they are `configs/` beside the package; a wheel holds the same files inside
it, as `seal_jax/configs/` (pyproject.toml). They have names, so that a command finds
them from any folder: `--config=squad:small` is `configs/squad.py`, variant `small`.
"""

import contextlib
import difflib
from pathlib import Path

from seal_jax.runtime import files, reading

EXAMPLE = "--config=tiny"
# Of another command, which makes the models that the package holds.
PRETRAINING = ("tiny_pretrain",)

_PACKAGE = Path(__file__).parents[1]


def folder() -> Path:
    """Where the files of the experiments are.

    Raises:
      FileNotFoundError: nowhere; the package was copied without them.
    """
    places = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
    for place in places:
        if files.is_file(place / "tiny.py"):
            return place
    raise FileNotFoundError(
        f"{places[0]}: must hold the experiments that come with seal-jax; install it "
        "again, or give an experiment's file, such as --config=PATH/tiny.py"
    )


def place(name: str) -> str:
    """The path of the file of an experiment, as a message gives it: short if it can."""
    path = folder() / f"{name}.py"
    with contextlib.suppress(OSError, ValueError):  # no such folder; not below it
        return str(path.relative_to(Path.cwd()))
    return str(path)


def names(*, pretrains: bool = False) -> list[str]:
    """What `--config` takes in the place of a file, of `train` or of `pretrain`."""
    found = {path.stem for path in folder().glob("*.py")}
    return sorted(name for name in found if (name in PRETRAINING) == pretrains)


def find(name: str, *, pretrains: bool = False) -> str:
    """The path of an experiment's file: that of `name` itself, or the one so named.

    A file that is there goes before a name.

    Raises:
      FileNotFoundError: neither; the nearest `names` are told.
    """
    if files.is_file(name):
        return name
    known = names(pretrains=pretrains)
    if name in (*known, *PRETRAINING):
        return str(folder() / f"{name}.py")
    begin = f"--config={reading.shorten(name)}: no such file"
    word = Path(name).name.removesuffix(".py")
    if len(word) < 100 and (near := difflib.get_close_matches(word, known, 2)):
        hint = " or ".join(f"--config={n}" for n in near)
        raise FileNotFoundError(f"{begin}; did you mean {hint}?")
    raise FileNotFoundError(
        f"{begin}; give an experiment's file, or one of {', '.join(known)}, as "
        f"{f'--config={known[0]}' if pretrains else EXAMPLE}"
    )
