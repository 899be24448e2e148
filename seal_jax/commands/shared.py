"""What the commands share: their models, how they end, and their flags."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from seal_jax.rewards import judge
from seal_jax.runtime import command_line, files, formatting, reading

if TYPE_CHECKING:
    from seal_jax.api.adapters import Adapters
    from seal_jax.api.models import Model

# A file of every workdir, and of no model's directory.
JOURNAL = "journal.jsonl"


def ended(work: Callable[[], None]) -> int:
    """Does a command's work; its exit status: 0, or 2 after an error in one line."""
    # jax takes three quarters of a GPU unless told otherwise, and reads this once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")

    def told() -> None:
        try:
            work()
        except (NotImplementedError, judge.JudgeError) as error:
            raise ValueError(" ".join(str(error).split())) from error

    return formatting.exit_status(told)


def is_workdir(path: str) -> bool:
    """Whether it is what a run left."""
    return files.is_file(Path(path) / JOURNAL)


_MODEL = (
    "a Hugging Face directory, a hub name, embedded:tiny, or the workdir of a run, for "
    "its newest policy"
)


def add_model(parser: argparse.ArgumentParser, *, positional: bool = False) -> None:
    """The model, `--model` or the first argument, and its dtype."""
    if positional:
        parser.add_argument("model", metavar="MODEL", help=_MODEL)
    else:
        parser.add_argument("--model", required=True, metavar="MODEL", help=_MODEL)
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of the weights; auto: float32 on a CPU, else bfloat16",
    )


def open_model(name: str, dtype: str) -> "Model":
    """The model that `--model` names; of a workdir its policy, or what it began with.

    Raises:
      ValueError, OSError: there is none, or it cannot be read.
    """
    # Imported here: `--help` and a mistyped flag should not wait for jax.
    import seal_jax as seal

    return seal.load(model_path(name), dtype=dtype, chat=_chat(name))


def _chat(name: str) -> str:
    """`model.chat` of the run of a workdir; a model by itself has none."""
    if is_workdir(name):
        match files.read_json(Path(name) / "config.json"):
            case {"model": {"chat": str(chat)}}:
                return chat
    return "none"


def model_path(name: str) -> str:
    """`name`; of a workdir its policy, or the path of the model that it began with.

    Raises:
      ValueError: a workdir without either.
    """
    if not is_workdir(name):
        return name
    policy = Path(name) / "policy"
    if files.is_folder(policy):
        return str(policy)
    values = files.read_json(Path(name) / "config.json")
    match values:
        case {"model": {"path": str(path)}}:
            print(f"{name}: no policy yet; this is its base, {path}", file=sys.stderr)
            return path
    raise ValueError(
        f"{name}: its config.json must name model.path; restore it, or give the model"
    )


def add_adapters(parser: argparse.ArgumentParser) -> None:
    """Adapters of the model."""
    parser.add_argument(
        "--adapters",
        metavar="DIR",
        action="append",
        default=[],
        help="a PEFT directory, or a folder of some, such as adapt writes; again for "
        "more",
    )


def read_adapters(paths: list[str], model: "Model") -> "Adapters | None":
    """Those that `--adapters` names; None without any."""
    import seal_jax as seal

    return seal.load_peft(list(paths), model=model) if paths else None


def check_folder(flag: str, path: str) -> None:
    """Refuses a file to write in a folder that is not there.

    Raises:
      ValueError: see above.
    """
    if files.is_folder(path) or not Path(path).absolute().parent.is_dir():
        raise ValueError(
            f"{flag} {reading.shorten(path)}: must be a file in a folder that is there;"
            " create the folder, or give another file"
        )


MAX_TOKENS = command_line.whole(1, 2**20)
TEMPERATURE = command_line.real(0.0, 100.0, least=1e-3)
TOP_P = command_line.real(1e-6, 1.0)
TOP_K = command_line.whole(0, 10_000_000)


def add_drawing(parser: argparse.ArgumentParser, *, of_run: str = "") -> None:
    """How texts are drawn.

    `of_run`: words that say that a run decides what is not given, which then is None.
    """
    own = {} if of_run else {"max_tokens": 64, "temperature": 0.0, "top_p": 1.0}
    parser.add_argument(
        "--max-tokens",
        type=MAX_TOKENS,
        default=own.get("max_tokens"),
        help=f"of a text; {of_run} 64",
    )
    parser.add_argument(
        "--temperature",
        type=TEMPERATURE,
        default=own.get("temperature"),
        help=f"0 is the likeliest token; {of_run} 0",
    )
    parser.add_argument(
        "--top-p", type=TOP_P, default=own.get("top_p"), help=f"{of_run} 1"
    )
    parser.add_argument(
        "--top-k", type=TOP_K, default=None if of_run else 0, help=f"{of_run} 0, all"
    )
    parser.add_argument("--seed", type=command_line.SEED, default=0, help="of draws")
