"""A workdir is of one run, which only the same config and data may continue."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seal_jax.report import html_page
from seal_jax.runtime import checkpoint, distributed, plugins, records
from seal_jax.runtime.journal import Journal
from seal_jax.tasks.base import Task
from seal_jax.training import inner
from seal_jax.training.settings import PlanConfig

SUMMARY, JOURNAL = "summary.json", "journal.jsonl"


def claim(
    workdir: Path,
    values: dict[str, Any],
    stack: contextlib.ExitStack,
    *,
    rising: str = "",
) -> dict[str, Any] | None:
    """Locks the workdir until the stack ends; the summary of a run that is finished.

    One of a lower number at `rising`, and else the same config, is to be continued.

    Raises:
      ValueError, OSError: another process holds it, or it is another config's.
    """
    leads = distributed.leads()
    if leads:
        stack.enter_context(records.lock(workdir))
    if leads and (workdir / records.CONFIG_NAME).exists():
        records.open_workdir(workdir, values, rising=rising)
    finished = distributed.share(
        lambda: (
            None
            if records.risen(workdir, values, rising)
            else finished_summary(workdir)
        )
    )
    if finished and leads:
        # Again, because a kill may have come between the two files.
        html_page.write_html(workdir)
    elif leads:
        # Before anything compiles: the first checkpoint comes hours later.
        checkpoint.check_directory(workdir)
    return finished


def check_journal(journal: Journal, workdir: Path) -> None:
    """Refuses checkpoints whose journal is gone: a new one may come to other weights.

    Raises:
      ValueError: see above.
    """
    folder = workdir / "checkpoints"
    if not len(journal) and folder.is_dir() and any(folder.iterdir()):
        raise ValueError(
            f"{folder}: must go with the journal.jsonl that it was made with, which is "
            "gone; restore that, or delete the folder too to start again"
        )


def check_items[Item](
    journal: Journal,
    task: Task[Item],
    train: Sequence[Sequence[Item]],
    heldout: Sequence[Item],
    *,
    rising: bool,
) -> None:
    """Refuses other items, prompts or code of a task than the workdir began with.

    A config only names files: of data, of prompts, of code.

    Args:
      journal: of the workdir.
      task: asks about the items.
      train: the items to learn from, in lists.
      heldout: those held out.
      rising: whether there may be more lists than in the beginning, or fewer again;
        otherwise how many there are is the data's saying.

    Raises:
      ValueError: see above.
    """

    def digest(items: Sequence[Item]) -> str:
        told = [
            [
                task.name(i),
                task.text(i),
                task.propose_prompt(i),
                task.prompts(i),
                task.gold(i),
            ]
            for i in items
        ]
        told.append([plugins.source(type(task))])
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]

    now = {"train": list(map(digest, train)), "heldout": digest(heldout)}
    first = journal.cached("items", lambda: now)
    # More rounds have more lists of items, and the same ones before them.
    counted = rising or len(now["train"]) == len(first["train"])
    if (
        not counted
        or now["heldout"] != first["heldout"]
        or any(a != b for a, b in zip(now["train"], first["train"], strict=False))
    ):
        raise ValueError(
            "this workdir was begun with other data, prompts or code than the config's "
            "files give now: one has changed; restore it, or give another --workdir"
        )
    if len(now["train"]) > len(first["train"]):
        # Added rounds, once begun, go on with these.
        journal.put("items", now)


def first_sizes(
    journal: Journal, cfg: inner.EngineConfig, *, shards: int
) -> inner.EngineConfig:
    """The sizes that a workdir began with: its units of work were cut by them.

    Raises:
      ValueError: it began on another number of devices.
    """
    sizes = {"plan": dataclasses.asdict(cfg.plan), "pool": cfg.pool, "shards": shards}
    first = journal.cached("sizes", lambda: sizes)
    if first["shards"] != shards:
        raise ValueError(
            f"this workdir was begun with mesh.data={first['shards']}, now it is "
            f"{shards}; use as many devices as then, or another --workdir"
        )
    plan = PlanConfig(**first["plan"])
    if plan.by_slot != cfg.plan.by_slot:
        # Another kind of device: its steps come in chunks, or do not, and that is of no
        # matter to what a unit of work is.
        chunk = cfg.plan.chunk_tokens
        chunk = chunk if chunk and plan.step_tokens % chunk == 0 else 0
        plan = dataclasses.replace(
            plan,
            by_slot=cfg.plan.by_slot,
            chunk_tokens=chunk,
            active=min(cfg.plan.active, plan.slots) if chunk else plan.slots,
        )
    return dataclasses.replace(cfg, plan=plan, pool=first["pool"])


def finished_summary(workdir: Path) -> dict[str, Any] | None:
    """The summary of a run that ended with nothing left to ask for."""
    path = workdir / SUMMARY
    if not path.exists():
        return None
    again = "delete it, and the same command writes it again"
    summary = records.read_json(path, fix=again)
    rows = summary.get("ladder", []) if isinstance(summary, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(
            f"{path}: must be the summary of a run, and was altered; {again}"
        )
    return None if any(row.get("missing") for row in rows) else summary
