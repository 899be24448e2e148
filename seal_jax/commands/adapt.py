"""`seal-jax adapt`: an adapter for each text, as PEFT directories.

They are written as their pools are finished; the same command goes on where it was
stopped, and trains what was added.
"""

from seal_jax.runtime import interrupts

if __name__ == "__main__":
    interrupts.install(interrupts.CONTINUES)  # Before imports that take seconds.

import argparse
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seal_jax.commands import given_columns, given_texts, shared
from seal_jax.runtime import command_line, files, formatting

# What the adapters of a folder were trained with, and on.
RECORD = "adapt.json"
_ADAPTER = "adapter_config.json"

EXAMPLES = """
seal-jax adapt notes/ --model=Qwen/Qwen2.5-1.5B --out=adapters
seal-jax adapt one.txt two.md --by-line --model=embedded:tiny --out=adapters
seal-jax adapt pairs.jsonl --model=runs/tiny --rank=8 --targets=all --out=adapters
seal-jax adapt notes.csv --column=text=body --model=embedded:tiny --out=adapters
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = command_line.Parser(
        prog="seal-jax adapt",
        description="Trains a LoRA adapter for each text, all at once, and writes each "
        "as a PEFT directory, OUT/NAME. The same command continues.",
        examples=EXAMPLES,
    )
    parser.add_argument(
        "texts",
        metavar="TEXTS",
        nargs="+",
        help=".txt and .md files, an adapter each; .jsonl, .json, .csv, .tsv and "
        ".parquet files, an adapter a row, with the columns text, or prompt and "
        'completion (.jsonl: a text, or {"lines": [...]} too); folders of them; or a '
        "hub name",
    )
    given_columns.add(parser, given_texts.COLUMNS)
    parser.add_argument("--split", default="", help="of a hub's data set")
    shared.add_model(parser)
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument(
        "--by-line",
        action="store_true",
        help="train each line of a text file for itself, not the text as a whole",
    )
    number = command_line.whole
    parser.add_argument("--rank", type=number(1, 65_536), default=16)
    parser.add_argument(
        "--targets",
        default="q_proj,v_proj",
        help="linears that carry an adapter, with commas between, or all",
    )
    parser.add_argument(
        "--alpha",
        type=command_line.real(1e-3, 1e6),
        help="the scale is alpha / rank; twice the rank if left out",
    )
    parser.add_argument(
        "--learning-rate", type=command_line.real(1e-12, 100.0), default=1e-3
    )
    parser.add_argument("--epochs", type=number(1, 1000), default=10)
    parser.add_argument(
        "--batch", type=number(1, 8192), default=1, help="lines of a step"
    )
    parser.add_argument("--warmup", type=number(0, 1_000_000), default=0, help="steps")
    parser.add_argument("--schedule", choices=("linear", "cosine"), default="linear")
    parser.add_argument("--clip", type=command_line.real(1e-6, 1e6), default=1.0)
    parser.add_argument("--seed", type=command_line.SEED, default=0)
    parser.add_argument(
        "--pool",
        type=number(0, 2**24),
        default=0,
        help="adapters that are trained before any is written; 0: what fits",
    )
    args = parser.parse_args(argv)
    return shared.ended(lambda: _adapt(args))


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """Of those that change what is learned."""
    targets = args.targets.split(",") if args.targets != "all" else "all"
    names = ("rank", "alpha", "learning_rate", "epochs", "batch", "warmup")
    names += ("schedule", "clip", "seed")
    return {"targets": targets} | {name: getattr(args, name) for name in names}


def _adapt(args: argparse.Namespace) -> None:
    texts = given_texts.named(
        args.texts,
        by_line=args.by_line,
        columns=given_columns.read(args.column, given_texts.COLUMNS),
        split=args.split,
    )
    out, settings = Path(args.out), _settings(args)
    made_with = settings | {"model": args.model, "dtype": args.dtype}
    before = _claim(out, made_with, texts)
    # Imported here: wrong arguments should not wait for jax.
    import seal_jax as seal

    waiting = [name for name in texts if not files.is_file(out / name / _ADAPTER)]
    failed: list[str] = []
    if waiting:
        model = shared.open_model(args.model, args.dtype)
        try:
            stream = seal.iter_adapters(
                model, [texts[name] for name in waiting], pool=args.pool, **settings
            )
        except ValueError as error:
            raise ValueError(_in_words(str(error), waiting)) from None
        files.write_json(out / RECORD, before)
        for index, adapter in stream:
            interrupts.check()
            name = waiting[index]
            if adapter.finite:
                adapter.save_peft(out / name)
            else:
                failed.append(name)
    done = len(texts) - len(failed)
    new = len(waiting) - len(failed)
    print(f"{out}: {formatting.count(done)} adapters, {new} of them new")
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(texts)} adapters did not stay finite and are not "
            f"written, such as {failed[0]!r}; lower --learning-rate"
        )


def _in_words(message: str, names: Sequence[str]) -> str:
    """An error of the API in the words of the command: names for numbers, and flags."""
    said = re.sub(r"^texts\[(\d+)\]", lambda found: names[int(found[1])], message)
    said = said.removeprefix("iter_adapters: ").replace("iter_adapters.", "--")
    said = said.replace("targets=", "--targets=", 1)
    return said.replace(
        "split it into a list of lines, such as text.splitlines()",
        "--by-line trains each of its lines, or split it in .jsonl",
    )


def _claim(
    out: Path, made_with: dict[str, Any], texts: dict[str, Any]
) -> dict[str, Any]:
    """The record of the folder as it will be.

    Raises:
      ValueError: it holds something else, or adapters of other settings or texts.
    """
    digests = {
        name: hashlib.sha256(json.dumps(text).encode()).hexdigest()[:16]
        for name, text in texts.items()
    }
    if files.is_file(out) or (
        files.is_folder(out) and not files.is_file(out / RECORD) and any(out.iterdir())
    ):
        raise ValueError(
            f"--out {out}: holds something else, no {RECORD}; give another folder"
        )
    there: Any = {"settings": made_with, "texts": {}}
    if files.is_file(out / RECORD):
        there = files.read_json(out / RECORD)
    match there:
        case {"settings": dict(old), "texts": dict(known)}:
            pass
        case _:
            raise ValueError(f"{out / RECORD}: was altered; give another --out")
    for key in made_with:
        if old.get(key) != made_with[key]:
            raise ValueError(
                f"--out {out}: its adapters have {key}={old.get(key)!r}, these would "
                f"have {made_with[key]!r}; give the same, or another --out"
            )
    for name, digest in digests.items():
        is_there = files.is_file(out / name / _ADAPTER)
        if is_there and known.get(name, digest) != digest:
            raise ValueError(
                f"--out {out}: the adapter {name!r} there was trained on another text; "
                "remove it, or give another --out"
            )
    with files.disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    return {"settings": made_with, "texts": {**known, **digests}}


if __name__ == "__main__":
    with interrupts.one_line():
        raise SystemExit(main())
