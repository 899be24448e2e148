"""`seal-jax generate`: what a model writes, with adapters or without; or talk to it."""

from seal_jax.runtime import interrupts

if __name__ == "__main__":
    interrupts.install()  # Before imports that take seconds.

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from seal_jax.commands import given_columns, given_texts, shared
from seal_jax.runtime import command_line, files

if TYPE_CHECKING:
    from seal_jax.api.adapters import Adapters
    from seal_jax.api.models import Model

EXAMPLES = """
seal-jax generate --model=embedded:tiny "Topic: Brora"
seal-jax generate --model=runs/tiny --prompts=questions.txt --out=answers.jsonl
seal-jax generate --model=embedded:tiny --adapters=adapters/000 --prompts=questions.txt
seal-jax generate --model=embedded:tiny --adapters=adapters     (then type prompts)
"""
_HELP = (
    "type a prompt (\\n is a new line); :adapter NUMBER, :adapter none, :temperature "
    "VALUE, :help, :quit"
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = command_line.Parser(
        prog="seal-jax generate",
        description="What a model writes after each prompt: a base, the policy of a "
        "run, or either with adapters. Without prompts it asks for them.",
        examples=EXAMPLES,
    )
    parser.add_argument(
        "given", metavar="PROMPT", nargs="*", help="a prompt; \\n in it is a new line"
    )
    shared.add_model(parser)
    shared.add_adapters(parser)
    parser.add_argument(
        "--each",
        action="store_true",
        help="every prompt under every adapter; else there is one adapter for all "
        "prompts, or one for each",
    )
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="a prompt a line (\\n in it is a new line); or .jsonl, rows that are a "
        'text or {"prompt": TEXT}; or .json, .csv, .tsv, .parquet with a column prompt',
    )
    given_columns.add(parser, given_texts.PROMPT)
    parser.add_argument(
        "--out", metavar="FILE", help="write rows of JSON there: prompt, adapter, text"
    )
    shared.add_drawing(parser)
    args = parser.parse_args(argv)
    return shared.ended(lambda: _generate(args))


def _generate(args: argparse.Namespace) -> None:
    prompts = [given_texts.unescaped(text) for text in args.given]
    if args.prompts:
        named = given_columns.read(args.column, given_texts.PROMPT)
        prompts += given_texts.prompts(args.prompts, named)
    if args.out:
        shared.check_folder("--out", args.out)
        if not prompts:
            raise ValueError(f"--out {args.out}: needs prompts; give --prompts FILE")
    model = shared.open_model(args.model, args.dtype)
    adapters = shared.read_adapters(args.adapters, model)
    drawing = {
        name: getattr(args, name)
        for name in ("max_tokens", "temperature", "top_p", "top_k", "seed")
    }
    if not prompts:
        _talk(model, adapters, drawing)
        return
    rows = list(_rows(model, adapters, prompts, drawing, each=args.each))
    if args.out:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        files.write_text(args.out, text)
        print(f"{args.out}: {len(rows)} texts")
        return
    for row in rows:
        under = "" if row["adapter"] is None or not args.each else row["adapter"]
        print(f"{under}\t{row['text']}" if under != "" else row["text"])


def _rows(
    model: "Model",
    adapters: "Adapters | None",
    prompts: list[str],
    drawing: dict[str, Any],
    *,
    each: bool,
) -> Iterator[dict[str, Any]]:
    """A row for each text: its prompt, the number of its adapter or None, the text."""
    if adapters is not None and each:
        texts = model.generate(
            [prompts] * len(adapters), adapters, progress=True, **drawing
        )
        for number, group in enumerate(texts):
            for prompt, text in zip(prompts, group, strict=True):
                yield {"prompt": prompt, "adapter": number, "text": text}
        return
    many = 0 if adapters is None else len(adapters)
    if many > 1 and many != len(prompts):
        raise ValueError(
            f"--adapters are {many} and prompts {len(prompts)}; give one adapter for "
            "each prompt, one for all, or --each for every prompt under every adapter"
        )
    texts = model.generate(prompts, adapters, progress=len(prompts) > 1, **drawing)
    for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        number = None if not many else i if many > 1 else 0
        yield {"prompt": prompt, "adapter": number, "text": text}


# Interactive


def _talk(model: "Model", adapters: "Adapters | None", drawing: dict[str, Any]) -> None:
    """Prompts from standard input, a line each, until it ends."""
    if sys.stdin.isatty():
        many = 0 if adapters is None else len(adapters)
        print(f"{model!r}, {many} adapters; {_HELP}", file=sys.stderr)
    number = None if adapters is None else 0
    while True:
        line = _asked(number)
        if line is None or line.strip() in (":quit", ":q"):
            return
        try:
            if line.startswith(":"):
                number, drawing = _told(line, number, drawing, adapters)
            elif line.strip():
                under = None if adapters is None or number is None else adapters[number]
                prompt = given_texts.unescaped(line)
                print(*model.generate([prompt], under, **drawing), flush=True)
        except (ValueError, IndexError) as error:
            # A slip is no end of a conversation.
            print(f"error: {error}", file=sys.stderr)


def _asked(number: int | None) -> str | None:
    """The next line; None at the end."""
    interrupts.check()
    mark = "" if not sys.stdin.isatty() else "> " if number is None else f"{number}> "
    try:
        return input(mark)
    except EOFError:
        return None


def _told(
    line: str,
    number: int | None,
    drawing: dict[str, Any],
    adapters: "Adapters | None",
) -> tuple[int | None, dict[str, Any]]:
    """The adapter and the settings after a line that begins with a colon.

    Raises:
      ValueError, IndexError: it is none of those that there are.
    """
    match line[1:].split():
        case ["help" | "h"]:
            print(_HELP)
        case ["adapter", "none"]:
            number = None
        case ["adapter", word] if word.isdecimal() and adapters is not None:
            adapters[int(word)]  # Refuses one that there is not.
            number = int(word)
        case ["adapter", _]:
            raise ValueError(
                f"{line!r}: must be the number of an adapter of --adapters, or none"
            )
        case ["temperature", word]:
            try:
                drawing = drawing | {"temperature": shared.TEMPERATURE(word)}
            except argparse.ArgumentTypeError as error:
                raise ValueError(f"temperature{error}") from None
        case _:
            raise ValueError(f"{line!r} is no command; {_HELP}")
    return number, drawing


if __name__ == "__main__":
    with interrupts.one_line():
        raise SystemExit(main())
