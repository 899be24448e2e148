"""`seal-jax export`: the policy of a run, or the adapter of any edit, for others."""

from seal_jax.runtime import interrupts

if __name__ == "__main__":
    interrupts.install()  # Before imports that take seconds.

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from seal_jax.commands import model_card, shared
from seal_jax.report import edit_names
from seal_jax.runtime import command_line, files, formatting

if TYPE_CHECKING:
    from seal_jax.commands.past_runs import Past
    from seal_jax.report.edit_names import Place
    from seal_jax.training.packed import TrainedAdapters

EXAMPLES = """
seal-jax export runs/tiny --out=policy
seal-jax export runs/tiny --round=1 --out=policy-1
seal-jax export runs/tiny --list
seal-jax export runs/tiny --edit=1/0/3 --seed=1 --out=adapter
seal-jax export runs/tiny --kept=1 --out=adapters
"""
# Of the training losses: more is not rounding.
_MOST_DRIFT = 0.01


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = command_line.Parser(
        prog="seal-jax export",
        description="Writes the policy of a run as a Hugging Face directory, or the "
        "adapter of one of its edits as a PEFT directory. Adapters are not kept by "
        "runs: it is trained again, as it was.",
        examples=EXAMPLES,
    )
    parser.add_argument("workdir", metavar="WORKDIR")
    parser.add_argument("--out", metavar="DIR", help="the directory to write")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--round",
        type=command_line.whole(0, 100),
        help="the policy after this round, 0 being the base; else the newest",
    )
    what.add_argument(
        "--edit",
        metavar="ROUND/ITEM/EDIT",
        help="the adapter of this edit; the item by its number or id",
    )
    what.add_argument(
        "--kept",
        metavar="ROUND",
        type=command_line.whole(1, 100),
        help="the adapters of the edits that this round kept, each in a folder by its "
        "item's id",
    )
    what.add_argument(
        "--list", action="store_true", help="print the edits that there are"
    )
    parser.add_argument(
        "--seed",
        type=command_line.SEED,
        default=0,
        help="which of the edit's adapters; 0",
    )
    args = parser.parse_args(argv)
    if not args.out and not args.list:
        parser.error("the following arguments are required: --out")
    return shared.ended(lambda: _export(args))


def _export(args: argparse.Namespace) -> None:
    if not shared.is_workdir(args.workdir):
        raise ValueError(
            f"{args.workdir[:160]}: holds no {shared.JOURNAL}; give the workdir of a "
            "run"
        )
    newest = Path(args.workdir) / "policy"
    if not (args.list or args.edit or args.kept or args.round is not None):
        _copy(newest, Path(args.out))
        return
    # Imported here, like all that brings jax.
    from seal_jax.commands import past_runs

    past = past_runs.read(args.workdir)
    if args.list:
        _list(past)
    elif args.edit or args.kept:
        _adapters(past, args)
    else:
        _policy(past, args)


def _copy(policy: Path, out: Path) -> None:
    """The newest policy, as the run wrote it."""
    from seal_jax.models import hf

    if not files.is_folder(policy):
        raise ValueError(
            f"{policy}: this run has no policy yet; --round=0 writes the base"
        )
    with hf.replacing(out, marker="config.json") as here:
        shutil.copytree(policy, here, dirs_exist_ok=True)
        model_card.write(policy.parent, here, after="the newest policy")
    print(f"{out}: the newest policy")


def _policy(past: "Past", args: argparse.Namespace) -> None:
    from seal_jax.commands import past_runs

    if args.round > past.rounds:
        raise ValueError(
            f"--round={args.round} must be at most {past.rounds}, the rounds that "
            f"{past.workdir} has; give one of these"
        )
    policy = past_runs.policy_after(past, args.round)
    policy.save(args.out)
    after = f"the policy after round {args.round}" if args.round else "the base"
    model_card.write(past.workdir, args.out, after=after)
    print(f"{args.out}: {after}")


def _adapters(past: "Past", args: argparse.Namespace) -> None:
    """The adapter of one edit in `--out`; or of each kept edit, in folders of it."""
    import jax
    import numpy as np

    from seal_jax.commands import past_runs
    from seal_jax.models import peft

    wanted = [past_runs.find(past, args.edit)] if args.edit else []
    wanted = wanted or past_runs.kept(past, args.kept)
    index = wanted[0].round
    base = past.exp.model.path if index == 1 else f"policy-{index - 1}"
    out, seen = Path(args.out), set[str]()
    trained_all = past_runs.adapters(
        past, wanted, args.seed, lambda line: print(line, file=sys.stderr)
    )
    for place, trained in trained_all:
        _check(place, args.seed, trained)
        delta = jax.tree.map(lambda leaf: np.asarray(leaf)[0], trained.adapters)
        name = _folder(place.id)
        if name in seen:  # Of an item more than one edit may be kept.
            name = f"{name}-{place.item}-{place.edit}"
        seen.add(name)
        # The scale is in it, as in all that the API writes.
        peft.save(
            out if args.edit else out / name,
            delta,
            cfg=past.checked.blank.arch,
            alpha=past.exp.inner.lora.rank,
            base_name=base,
        )
    if args.edit:
        print(f"{out}: the adapter of edit {args.edit}, seed {args.seed}")
    else:
        count = formatting.count(len(wanted))
        print(f"{out}: {count} adapters, of the edits that round {index} kept")
    if index > 1:
        print(
            f"{'it belongs' if args.edit else 'they belong'} to the policy after round "
            f"{index - 1}: seal-jax export {past.workdir} --round={index - 1} "
            f"--out={base}"
        )


def _folder(name: str) -> str:
    """An item's id as the name of a folder."""
    return re.sub(r"[^\w. -]", "_", name).lstrip(".") or "_"


def _check(place: "Place", seed: int, trained: "TrainedAdapters") -> None:
    """Refuses what is not the adapter of the run.

    Raises:
      ValueError: see above.
    """
    from seal_jax.commands import past_runs

    if not trained.finite_A[0]:
        raise ValueError(
            f"--edit={place.name}: its training does not stay finite, as in the run; "
            "give another"
        )
    drift = past_runs.drift(place, seed, trained)
    if drift is not None and drift > _MOST_DRIFT:
        raise ValueError(
            f"--edit={place.name}: its training loss is off by {drift:.1%} from the "
            "run's, so it is another adapter; the model, the data or the program have "
            "changed: run it anew"
        )


def _list(past: "Past") -> None:

    rows = []
    for place in edit_names.places(past.edits):
        row = place.row
        begin = " ".join(row["text"].split())[:48]
        kept = "kept" if row.get("kept") else row.get("refused") or ""
        rows.append(
            (
                f"{place.round}/{place.item}/{place.edit}",
                formatting.count(len(row["losses"])),
                formatting.number(row.get("reward")),
                kept,
                begin,
            )
        )
    if not rows:
        raise ValueError(f"{past.workdir}: has no edits yet; let its run go on")
    print(formatting.ruled(("edit", "seeds", "reward", "", "begins"), rows))


if __name__ == "__main__":
    with interrupts.one_line():
        raise SystemExit(main())
