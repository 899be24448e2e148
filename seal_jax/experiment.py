"""One run from the first check to the last file: what `train.run` calls.

Order: check everything that can be wrong without compiling; size the inner loop; open
the workdir; then the way of this kind of experiment (`KINDS`), and the report.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from seal_jax import (
    capacity,
    config,
    config_continual,
    config_few_shot,
    config_pooled,
    config_rounds,
    config_rules,
    continual,
    distributed,
    few_shot,
    inner,
    knowledge,
    lora,
    mesh,
    metrics,
    model,
    policy,
    pooled,
    records,
    report,
    report_html,
    rounds,
    runtime,
    training_settings,
    trials,
)
from seal_jax.journal import Journal

SUMMARY = "summary.json"


type Experiment = (
    config_rounds.Experiment
    | config_few_shot.FewShot
    | config_continual.Continual
    | config_pooled.Pooled
)


class Kind(NamedTuple):
    """What a run asks of a kind of experiment: its items, and the way through them.

    `task`: module with `load`, `make` and `connect`; `walk` ends in the summary.
    """

    config: type
    task: Any
    walk: Callable[..., dict[str, Any]]


KINDS = (
    Kind(config_rounds.Experiment, knowledge, rounds.walk),
    Kind(config_few_shot.FewShot, few_shot, rounds.walk),
    Kind(config_continual.Continual, continual, continual.walk),
    Kind(config_pooled.Pooled, pooled, pooled.walk),
)


def read(values: Mapping[str, Any]) -> Experiment:
    """The experiment that a config describes.

    A group `sequence` makes it a continual one, a group `pool` one on pooled edits; of
    rounds, the task's name says whether they are on passages or on few-shot tasks.

    Raises:
      ValueError: see `config_rules.build`.
    """
    if "sequence" in values:
        return config_rules.build(config_continual.Continual, values)
    if "pool" in values:
        return config_rules.build(config_pooled.Pooled, values)
    task = values.get("task")
    if isinstance(task, Mapping) and "name" in task:
        known = (*config.TASKS, *config_few_shot.TASKS)
        config_rules.one_of("config.task.name", task["name"], known)
        if task["name"] in config_few_shot.TASKS:
            return config_rules.build(config_few_shot.FewShot, values)
    return config_rules.build(config_rounds.Experiment, values)


def run(
    exp: Experiment,
    values: dict[str, Any],
    workdir: Path,
    *,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Runs, or continues, `exp` in `workdir`; `values` is the config as written.

    Several processes call it alike; only the first one touches `workdir` and speaks,
    and all return its summary.
    """
    leads = distributed.leads()
    if not leads:
        say = _silent
    check_same(values)
    kind = next(k for k in KINDS if isinstance(exp, k.config))
    train, heldout = kind.task.load(exp)
    blank = policy.describe(exp.model, turn_end=exp.turn_end)
    for name in ("inner", "imitate"):
        cfg = getattr(exp, name, None)
        if cfg is not None:
            targets, rank = cfg.lora.targets, cfg.lora.rank
            lora.check(blank.arch, targets=targets, rank=rank, name=f"{name}.lora")
    task = kind.task.make(exp, blank, list(itertools.chain(*train)), heldout)
    runtime.cache_programs()
    distributed.keep_cache_if_shared()
    devices = mesh.of_devices(data=exp.mesh.data, model=exp.mesh.model)
    if devices is not None and exp.model.kernel.startswith("mosaic"):
        raise ValueError(
            f"model.kernel={exp.model.kernel!r} runs on one device; use 'auto' or "
            "'xla' on a mesh, or mesh.data=1 and mesh.model=1"
        )
    distributed.check_mesh(devices)
    with contextlib.ExitStack() as stack:
        times = stack.enter_context(runtime.compile_times())
        if leads:
            stack.enter_context(records.lock(workdir))
        if leads and (workdir / records.CONFIG_NAME).exists():
            records.open_workdir(workdir, values)
        finished = distributed.share(lambda: finished_summary(workdir))
        if finished:
            if leads:
                # Again, because a kill may have come between the two files.
                report_html.write_html(workdir)
            say(report.summary_table(finished))
            say(f"{workdir} holds a finished run; give another --workdir for a new one")
            return finished
        task = kind.task.connect(task, workdir)
        if exp.adapters:
            sizes = fitting(exp, blank.arch, devices, say=say)
        else:
            least = exp.inner.step_tokens or exp.inner.row_tokens
            sizes = capacity.build(exp.inner, step_tokens=least, adapters=1)
        # In a list, to be handed over: see `rounds.walk` on its weights.
        base = [policy.load(exp.model, blank, seed=exp.seed, on=devices)]
        # Not before: a config that cannot run must not claim the workdir.
        if leads:
            records.open_workdir(workdir, values)
        journal = stack.enter_context(
            distributed.open_journal(workdir / "journal.jsonl")
        )
        state = trials.Run(
            exp=exp,
            inner=kept(journal, sizes, shards=mesh.shards(devices)),
            mesh=devices,
            journal=journal,
            metrics=stack.enter_context(
                metrics.Metrics(workdir) if leads else metrics.NullMetrics()
            ),
            task=task,
            say=say,
        )
        summary = kind.walk(state, base.pop(), train, heldout, workdir)
        summary |= costs(journal)
        summary["config_hash"] = records.config_hash(values)
        summary["compile"] = dataclasses.asdict(times)
        summary = distributed.share(lambda: summary)
        if leads:
            records.write_json(workdir / SUMMARY, summary)
            report_html.write_html(workdir)
    say(report.summary_table(summary))
    say(report.seconds_line(summary))
    say(times.line())
    say(f"report: {workdir / 'report.html'}")
    return summary


def _silent(line: str) -> None:
    """`say` of the processes that do not lead."""


def check_same(values: dict[str, Any]) -> None:
    """Refuses processes that were given different configs.

    Raises:
      ValueError: see above.
    """
    hashes = distributed.everyone(records.config_hash(values))
    odd = [i for i, h in enumerate(hashes) if h != hashes[0]]
    if odd:
        raise ValueError(
            f"process {odd[0]} has another config than process 0; start all processes "
            "of a run with the same --config and the same --config.key=value"
        )


def fitting(
    exp: Experiment,
    arch: model.ModelConfig,
    devices: Mesh | None,
    *,
    say: Callable[[str], None],
) -> inner.EngineConfig:
    """The inner loop's sizes for the devices here; compiles its program.

    Raises:
      ValueError: see `capacity.choose`.
    """
    own = runtime.memory_limit(jax.local_devices()[0])
    limit = min(distributed.everyone(own))
    imitate = getattr(exp, "imitate", None)
    if imitate is not None and imitate.start == "base":
        # It is kept beside the policy, for every round to start from.
        limit -= capacity.base_bytes(arch, devices)
    cfg, memory = capacity.choose(
        arch,
        exp.inner,
        limit=limit,
        adapters=exp.adapters,
        lines=exp.lines_per_step,
        on=devices,
        options=exp.engine,
    )
    say(
        f"inner loop: steps of {cfg.plan.step_tokens} tokens, {cfg.plan.slots} slots, "
        f"up to {cfg.pool} adapters at a time; memory {memory.line()}"
    )
    return cfg


def kept(
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
    return dataclasses.replace(
        cfg, plan=training_settings.PlanConfig(**first["plan"]), pool=first["pool"]
    )


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
        phase = key.split("/adapt/")[0] + "/adapt" if "/adapt/" in key else key
        seconds[phase] = seconds.get(phase, 0.0) + value["seconds"]
        adapters += value.get("adapters", len(value.get("trials", ())))
        tokens += value.get("tokens", 0)
    return {"adapters": adapters, "tokens": tokens, "seconds": seconds}


def finished_summary(workdir: Path) -> dict[str, Any] | None:
    """The summary of a run that ended with nothing left to ask for."""
    path = workdir / SUMMARY
    if not path.exists():
        return None
    summary = records.read_json(path)
    incomplete = any(row.get("missing") for row in summary.get("ladder", ()))
    return None if incomplete else summary
