"""What a run ends with: where to look, and commands that go on from it."""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from seal_jax.report import edit_names
from seal_jax.runtime import files

_MORE = "--more_rounds"
_LONG = 300  # A prompt of more characters is not put on a command line.


def lines(argv: Sequence[str], workdir: Path, *, rising: bool, more: int) -> list[str]:
    """For people, after a run has finished.

    Args:
      argv: of the command that made the run, without the program's name.
      workdir: of the run.
      rising: whether it can be given more rounds; such runs leave a policy and edits.
      more: rounds beyond the config's that it was given already.
    """
    python, where = _python(), shlex.quote(str(workdir))
    seal = f"{python} -m seal_jax"
    train = f"{python} -m seal_jax.train"
    rest = _without(argv, "workdir")
    other = Path(f"{workdir}-2")
    values = files.read_json(workdir / "config.json")
    # A run over many seeds counts them on from its own.
    step = values.get("over_seeds", {}).get("count", 1)
    again = [
        *_without(rest, "config.seed"),
        f"--config.seed={values['seed'] + step}",
        f"--workdir={other}",
    ]
    steps = []
    if rising:
        path = workdir / "edits.jsonl"
        rows = files.read_jsonl(path) if path.is_file() else []
        best = _best(rows)
        if best is not None:
            out = shlex.quote(f"{workdir}-adapter")
            steps.append(
                (
                    f"{seal} export {where} --edit={best.name} --out={out}",
                    "the adapter of the best-rewarded edit, for PEFT",
                )
            )
        prompt = next((row["prompt"] for row in reversed(rows) if row["prompt"]), "")
        steps.append(
            (
                f"{seal} generate --model={where}{_argument(prompt)}",
                "what the policy writes now",
            )
        )
        args = [*_without(rest, _MORE.strip("-")), f"--workdir={workdir}"]
        steps.append(
            (
                f"{train} {shlex.join([*args, f'{_MORE}={more + 1}'])}",
                "a round more, from where it ended",
            )
        )
    else:
        steps += [
            (f"{train} {shlex.join(again)}", "the same with another seed"),
            (f"{seal} report {where} {shlex.quote(str(other))}", "both, side by side"),
        ]
    return [
        f"look at {workdir / 'report.html'} in a browser: this table, and what was "
        "written, answered and rewarded",
        "then try",
        *(line for step, what in steps for line in (f"  # {what}", f"  {step}")),
    ]


def _best(rows: list[dict]) -> edit_names.Place | None:
    """The edit with the highest reward, the last of equals: of the newest policy."""
    trained = [
        place
        for place in edit_names.places(rows)
        if isinstance(place.row.get("reward"), int | float)
        and not place.row.get("refused")
    ]
    return max(reversed(trained), key=lambda place: place.row["reward"], default=None)


def _argument(prompt: str) -> str:
    """A prompt as `generate` takes it, or nothing: then it asks for prompts."""
    if not prompt or len(prompt) > _LONG or "\\" in prompt:
        return ""
    # What begins with - would be an option.
    end = " --" if prompt.startswith("-") else ""
    return f"{end} {shlex.quote(prompt.replace('\n', '\\n'))}"


def _without(argv: Sequence[str], flag: str) -> list[str]:
    """The arguments without a flag that takes a value, in either form."""
    kept: list[str] = []
    skip = False
    for argument in argv:
        name, equals, _ = argument.lstrip("-").partition("=")
        ours = argument.startswith("-") and name == flag
        if not ours and not skip:
            kept.append(argument)
        skip = ours and not equals
    return kept


def _python() -> str:
    """This interpreter, as short as the shell here finds it."""
    if shutil.which("python") == sys.executable:
        return "python"
    here = os.path.relpath(sys.executable)
    return shlex.quote(sys.executable if here.startswith(os.pardir) else here)
