"""One run from the first check to the last file: what `train.run` calls.

Order: check everything that can be wrong without compiling; size the inner loop; open
the workdir; then the way of this kind of experiment (`kinds.KINDS`), and the report.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from seal_jax.experiment import checks, sizes, workdirs
from seal_jax.generation import policies
from seal_jax.report import console, html_page
from seal_jax.rounds import more_rounds, trials, unit_key
from seal_jax.rounds.experiment import Experiment
from seal_jax.rounds.few_shot_settings import FewShot
from seal_jax.rounds.settings import PassageRounds
from seal_jax.rounds.unit_key import UnitKey
from seal_jax.runtime import (
    backend,
    distributed,
    interrupts,
    meshes,
    metrics,
    progress,
    records,
    writers,
)
from seal_jax.runtime.journal import Journal

# What a person looks at first when a run has ended.
FILES = (
    workdirs.SUMMARY,
    "sessions.jsonl",
    "edits.jsonl",
    "heldout.jsonl",
    "metrics.jsonl",
    "policy",
)


def run(
    exp: Experiment,
    values: dict[str, Any],
    workdir: Path,
    *,
    say: Callable[[str], None],
    counted: Callable[[list[Any], list[Any]], int] | None = None,
) -> dict[str, Any]:
    """Runs, or continues, `exp` in `workdir`; `values` is the config as written.

    `counted` says how many adapters it trains in all, about, from the lists of items to
    learn from and the items held out; None: nobody knows.
    Several processes call it alike; only the first one touches `workdir` and speaks,
    and all return its summary.
    """
    if distributed.leads():
        writers.check(exp.watch)
    else:
        say = _silent
    checked = checks.check(exp, values)
    with interrupts.units(), contextlib.ExitStack() as stack:
        times = stack.enter_context(backend.compile_times())
        rising = checked.kind.rising
        finished = workdirs.claim(workdir, values, stack, rising=rising)
        if finished:
            say(console.summary_table(finished))
            more = f", or raise {rising} for more rounds" if rising else ""
            say(
                f"{workdir} holds a finished run; give another --workdir for a new one"
                f"{more}"
            )
            return finished
        say(f"{workdir}: config {records.config_hash(values)}, {machine()}")
        state, base = open_run(exp, values, checked, workdir, stack, say=say)
        if counted is not None:
            far = whole(state.journal, counted(checked.train, checked.heldout))
            state = dataclasses.replace(state, whole=far)
            say(far.text())
        summary = checked.kind.walk(
            state, base, checked.train, checked.heldout, workdir
        )
        summary |= costs(state.journal)
        summary["config_hash"] = records.config_hash(values)
        summary["compile"] = dataclasses.asdict(times)
        summary = distributed.share(lambda: summary)
        if distributed.leads():
            records.write_json(workdir / workdirs.SUMMARY, summary)
            html_page.write_html(workdir)
    say(console.summary_table(summary))
    say(console.seconds_line(summary))
    say(times.line())
    there = ", ".join(name for name in FILES if (workdir / name).exists())
    say(f"files in {workdir}: {there}")
    say(f"report: {workdir / 'report.html'}")
    return summary


def machine() -> str:
    """The devices of all processes, in a few words."""
    devices = jax.devices()
    return f"devices: {len(devices)} of kind {devices[0].device_kind}"


def whole(journal: Journal, counted: int) -> progress.Whole:
    """How far a run is that is about to train `counted` adapters in all."""
    return progress.Whole(counted, "adapters", done=costs(journal)["adapters"])


def open_run[Item](
    exp: Experiment,
    values: dict[str, Any],
    checked: checks.Checked[Item],
    workdir: Path,
    stack: contextlib.ExitStack,
    *,
    say: Callable[[str], None],
) -> tuple[trials.Run[Experiment, Item], policies.Policy]:
    """What every phase needs, and the base; files are open until the stack ends.

    Raises:
      ValueError: see `size` and `first_sizes`.
    """
    leads, mesh = distributed.leads(), checked.mesh
    task = checked.kind.connect(exp, checked.task, workdir)
    prepared = sizes.prepared(exp, checked, workdir, say=say)
    merges = exp.imitate is not None
    base = policies.load(
        exp.model, checked.blank, seed=exp.seed, mesh=mesh, merges=merges
    )
    # Not before: a config that cannot run must not claim the workdir.
    if leads:
        if records.risen(workdir, values, checked.kind.rising):
            arms = exp.last_arms if isinstance(exp, PassageRounds | FewShot) else ()
            more_rounds.extend(
                workdir, values, summary=workdirs.SUMMARY, last_arms=arms
            )
        records.open_workdir(workdir, values)
    journal = stack.enter_context(
        distributed.open_journal(workdir / workdirs.JOURNAL, summed=True)
    )
    if leads:
        workdirs.check_journal(journal, workdir)
    workdirs.check_items(
        *(journal, task, checked.train, checked.heldout),
        rising=bool(checked.kind.rising),
    )
    state = trials.Run(
        exp=exp,
        inner=workdirs.first_sizes(journal, prepared, shards=meshes.shards(mesh)),
        mesh=mesh,
        journal=journal,
        metrics=stack.enter_context(
            metrics.Metrics(workdir, watch=exp.watch, config=values, say=say)
            if leads
            else metrics.NullMetrics()
        ),
        task=task,
        say=say,
    )
    return state, base


def _silent(line: str) -> None:
    """`say` of the processes that do not lead."""


def costs(journal: Journal) -> dict[str, Any]:
    """Adapters, tokens and seconds by phase, over all runs it took.

    The seconds are those of the units of work that count, so an interrupted run's lost
    work is not in them.
    """
    seconds: dict[str, float] = {}
    adapters = tokens = 0
    for key in journal.keys():  # noqa: SIM118 (not a mapping)
        value = journal.get(key)
        if not isinstance(value, dict) or "seconds" not in value:
            continue
        unit = UnitKey.parse(key)
        phase = unit.stage if unit.kind == unit_key.ADAPT else key
        seconds[phase] = seconds.get(phase, 0.0) + value["seconds"]
        adapters += value.get("adapters", len(value.get("trials", ())))
        tokens += value.get("tokens", 0)
    return {"adapters": adapters, "tokens": tokens, "seconds": seconds}
