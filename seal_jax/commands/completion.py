"""`seal-jax completion bash|zsh|fish`: a script that completes commands and flags.

It is static, so that completing starts no Python. Flags are those of the commands'
parsers; `train` and `pretrain` have their own (`--config.KEY=VALUE`).
"""

from seal_jax.runtime import interrupts

if __name__ == "__main__":
    interrupts.install()  # Before imports that take seconds.

import contextlib
import importlib
import io
import re
from collections.abc import Mapping, Sequence

from seal_jax.commands.table import COMMANDS
from seal_jax.runtime import command_line, formatting

EXAMPLES = """
seal-jax completion bash >> ~/.bashrc
seal-jax completion zsh >> ~/.zshrc
seal-jax completion fish > ~/.config/fish/completions/seal-jax.fish
"""
SHELLS = ("bash", "zsh", "fish")
# Of the commands whose flags absl reads.
_ABSL = {
    "train": (
        "--config",
        "--workdir",
        "--dry_run",
        "--more_rounds",
        "--rate",
        "--help",
    ),
    "pretrain": ("--config",),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = command_line.Parser(
        prog="seal-jax completion",
        description="Prints a script by which a shell completes commands and flags.",
        examples=EXAMPLES,
    )
    parser.add_argument("shell", choices=SHELLS)
    args = parser.parse_args(argv)
    return formatting.exit_status(lambda: print(script(args.shell, flags()), end=""))


def flags() -> dict[str, tuple[str, ...]]:
    """The flags of every command, as its `--help` lists them."""
    found = {}
    for name, (module, _) in COMMANDS.items():
        found[name] = _ABSL.get(name) or _listed(module)
    return found


def _listed(module: str) -> tuple[str, ...]:
    # `report` is a package, whose command is in its `console`.
    place = f"{module}.console" if module == "seal_jax.report" else module
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        importlib.import_module(place).main(["--help"])
    usage = text.getvalue().split("\nexamples:")[0]
    return tuple(dict.fromkeys(re.findall(r"--[a-z][a-z-]*", usage)))


def script(shell: str, flags: Mapping[str, Sequence[str]]) -> str:
    """The script of a shell, for the command `seal-jax`."""
    names = " ".join(flags)
    if shell == "fish":
        head = f"complete -c seal-jax -n __fish_use_subcommand -f -a '{names}'\n"
        return head + "".join(
            f"complete -c seal-jax -n '__fish_seen_subcommand_from {name}' "
            f"-l {flag.removeprefix('--')}\n"
            for name, own in flags.items()
            for flag in own
        )
    cases = "\n".join(
        f'    {name}) words="{" ".join(own)}" ;;' for name, own in flags.items()
    )
    # zsh has bash's way of completing, once asked for.
    ask = "autoload -Uz bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return f"""{ask}_seal_jax() {{
  local words="{names}" word="${{COMP_WORDS[COMP_CWORD]}}"
  if [ "$COMP_CWORD" -gt 1 ]; then
    case "${{COMP_WORDS[1]}}" in
{cases}
    *) words="" ;;
    esac
  fi
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ] || [ "${{word#-}}" != "$word" ]; then
    COMPREPLY=($(compgen -W "$words" -- "$word"))
  fi
}}
complete -o default -F _seal_jax seal-jax
"""


if __name__ == "__main__":
    with interrupts.one_line():
        raise SystemExit(main())
