"""All commands under one name: `python -m seal_jax NAME ...`, installed as `seal-jax`.

Each command lives in the module beside its name; nothing is imported before it is
chosen, so that `--help` and a mistyped name answer at once.
"""

import runpy
import sys
from importlib import metadata

from seal_jax.commands.table import COMMANDS
from seal_jax.runtime import interrupts


def usage() -> str:
    """The commands, a line each."""
    lines = ["usage: seal-jax COMMAND ...  (or: python -m seal_jax COMMAND ...)", ""]
    lines += [f"  {name:<12} {about}" for name, (_, about) in COMMANDS.items()]
    lines += ["", "seal-jax COMMAND --help tells more about each."]
    return "\n".join(lines)


def main() -> None:
    """Runs the command that the first argument names, with the rest as its own."""
    interrupts.install()
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name == "--version":
        print(f"seal-jax {metadata.version('seal-jax')}")
        return
    if name in ("-h", "--help", "help"):
        print(usage())
        return
    if name not in COMMANDS:
        # Here, and not above: a signal while argparse is imported ends in one line too.
        from seal_jax.runtime import command_line

        near = command_line.nearest(name, COMMANDS)
        hint = f"did you mean {near}?" if near else f"one of {', '.join(COMMANDS)}"
        print(f"error: no command {name!r}; {hint}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"seal-jax {name}", *sys.argv[2:]]
    with interrupts.one_line():
        runpy.run_module(COMMANDS[name][0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
