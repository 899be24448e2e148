"""All commands under one name: `python -m seal_jax NAME ...`, installed as `seal-jax`.

Each command lives in the module beside its name; nothing is imported before it is
chosen, so that `--help` and a mistyped name answer at once.
"""

import difflib
import runpy
import sys

from seal_jax.runtime import interrupts

COMMANDS = {
    "train": ("seal_jax.train", "run an experiment from a config file, or continue it"),
    "adapt": (
        "seal_jax.commands.adapt",
        "an adapter for each of your texts, as PEFT directories",
    ),
    "generate": (
        "seal_jax.commands.generate",
        "what a model writes, with adapters or without; or talk to it",
    ),
    "evaluate": (
        "seal_jax.commands.evaluate",
        "answers to a data set's questions, graded; nothing is trained",
    ),
    "export": (
        "seal_jax.commands.export",
        "the policy of a run, or the adapter of any of its edits, for others",
    ),
    "report": ("seal_jax.report", "results of runs as tables, and as one page"),
    "select": (
        "seal_jax.report.commands.select",
        "a fine-tuning set from a released ranking of self-edits",
    ),
    "novelty": (
        "seal_jax.report.commands.novelty",
        "how new self-edits are, and how alike",
    ),
    "reliability": (
        "seal_jax.report.commands.reliability",
        "how far a reward tells edits apart, and what more seeds would bring",
    ),
    "agreement": (
        "seal_jax.report.commands.agreement",
        "how well other rewards choose, beside the true one",
    ),
    "continual": (
        "seal_jax.report.commands.continual",
        "matrices of continual runs, side by side",
    ),
    "pretrain": ("seal_jax.embedded.pretrain", "make the models that ship with it"),
}


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
    if name in ("-h", "--help", "help"):
        print(usage())
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(COMMANDS)}"
        sys.exit(f"error: no command {name!r}; {hint}")
    sys.argv = [f"seal-jax {name}", *sys.argv[2:]]
    with interrupts.one_line():
        runpy.run_module(COMMANDS[name][0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
