"""One run from the first check to the last file: what `train.run` calls.

Order: check everything that can be wrong without compiling; size the inner loop; open
the workdir; then the way of this kind of experiment (`KINDS`), and the report.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from seal_jax.continual import sequences as continual
from seal_jax.continual.settings import Continual
from seal_jax.deploy import days as deploy
from seal_jax.deploy.settings import Deploy
from seal_jax.generation import policies
from seal_jax.lmsi import walk as lmsi
from seal_jax.lmsi.settings import Lmsi
from seal_jax.models import decoder, lora
from seal_jax.pooled import arms as pooled
from seal_jax.pooled.settings import Pooled
from seal_jax.report import console, html_page
from seal_jax.rounds import (
    first_programs,
    gold,
    grading,
    loop,
    more_rounds,
    over_seeds,
    trials,
    unit_key,
)
from seal_jax.rounds.experiment import Experiment
from seal_jax.rounds.few_shot_settings import FewShot
from seal_jax.rounds.over_seeds_settings import OverSeeds
from seal_jax.rounds.settings import PassageRounds
from seal_jax.rounds.unit_key import UnitKey
from seal_jax.runtime import (
    backend,
    checkpoint,
    compiling,
    config_rules,
    distributed,
    formatting,
    interrupts,
    meshes,
    metrics,
    plugins,
    progress,
    records,
    writers,
)
from seal_jax.runtime.journal import Journal
from seal_jax.tasks import few_shot, few_shot_settings, knowledge
from seal_jax.tasks import settings as tasks_settings
from seal_jax.tasks.base import Task
from seal_jax.training import capacity, inner
from seal_jax.training.settings import PlanConfig

SUMMARY, JOURNAL = "summary.json", "journal.jsonl"
# What a person looks at first when a run has ended.
FILES = (
    SUMMARY,
    "sessions.jsonl",
    "edits.jsonl",
    "heldout.jsonl",
    "metrics.jsonl",
    "policy",
)


@dataclasses.dataclass(frozen=True)
class Kind[Exp: Experiment, Item, T: Task]:
    """What a run asks of a kind of experiment: its items, and the way through them.

    `load` gives the items to learn from, in lists, and those held out; `make` the task,
    checked; `connect` the task with who grades its answers. `walk` ends in the summary.
    `rising`: a key that may be raised in the workdir of a run (`more_rounds`).
    `expect`: calls the programs that the walk begins with; None: not known before.
    """

    config: type[Exp]
    load: Callable[[Exp], tuple[list[list[Item]], list[Item]]]
    make: Callable[[Exp, policies.Policy, Sequence[Item], Sequence[Item]], T]
    connect: Callable[[Exp, T, Path], T]
    walk: Callable[
        [
            trials.Run[Exp, Item],
            policies.Policy,
            Sequence[Sequence[Item]],
            Sequence[Item],
            Path,
        ],
        dict[str, Any],
    ]
    rising: str = ""
    expect: (
        Callable[
            [
                Exp,
                policies.Policy,
                T,
                Sequence[Sequence[Item]],
                Sequence[Item],
                compiling.Call,
            ],
            None,
        ]
        | None
    ) = None


def unconnected[T](exp: Experiment, task: T, workdir: Path) -> T:
    """The task as it is: its answers are compared with its own."""
    del exp, workdir
    return task


KINDS: tuple[Kind[Any, Any, Any], ...] = (
    # Before the rounds of one seed, of which it is a kind.
    Kind(
        OverSeeds,
        over_seeds.load,
        knowledge.make,
        grading.connect,
        over_seeds.walk,
    ),
    Kind(
        PassageRounds,
        gold.load,
        knowledge.make_rounds,
        grading.connect_rounds,
        loop.walk,
        more_rounds.KEY,
        first_programs.expect,
    ),
    Kind(
        FewShot,
        few_shot.load,
        few_shot.make,
        unconnected,
        loop.walk,
        more_rounds.KEY,
        first_programs.expect,
    ),
    Kind(
        Continual,
        continual.load,
        continual.make,
        grading.connect,
        continual.walk,
    ),
    Kind(
        Deploy,
        deploy.load,
        deploy.make,
        grading.connect,
        deploy.walk,
    ),
    Kind(
        Pooled,
        pooled.load,
        pooled.make,
        grading.connect,
        pooled.walk,
    ),
    Kind(
        Lmsi,
        lmsi.load,
        lmsi.make,
        unconnected,
        lmsi.walk,
    ),
)


def read(values: Mapping[str, Any]) -> Experiment:
    """The experiment that a config describes.

    A group `over_seeds` makes it rounds over many seeds, a group `sequence` a continual
    one, a group `stream` one on the job, a group `pool` one on pooled edits, a group
    `chains` one without labels; of rounds, the task's name says whether they are on
    passages or on few-shot tasks.

    Raises:
      ValueError: see `config_rules.build`.
    """
    if "over_seeds" in values:
        return config_rules.build(OverSeeds, values)
    if "sequence" in values:
        return config_rules.build(Continual, values)
    if "stream" in values:
        return config_rules.build(Deploy, values)
    if "pool" in values:
        return config_rules.build(Pooled, values)
    if "chains" in values:
        return config_rules.build(Lmsi, values)
    if "arms" in values:
        raise ValueError(
            "config.arms is of a config with the group sequence, stream, pool or "
            "chains, which must be there; add it, or use ladder in its place"
        )
    task = values.get("task")
    if isinstance(task, Mapping) and "name" in task:
        names = (*tasks_settings.TASKS, *few_shot_settings.TASKS)
        plugins.one_of("config.task.name", task["name"], names)
        if task["name"] in few_shot_settings.TASKS:
            return config_rules.build(FewShot, values)
    return config_rules.build(PassageRounds, values)


def kind_of(exp: Experiment) -> Kind[Any, Any, Any]:
    return next(k for k in KINDS if isinstance(exp, k.config))


def raised(values: Mapping[str, Any], more: int) -> dict[str, Any]:
    """The config with `more` rounds than it says.

    Raises:
      ValueError: it is of no kind of experiment that can be continued by rounds.
    """
    exp = read(values)
    kind = kind_of(exp)
    if not kind.rising:
        raise ValueError(
            f"--more_rounds={more} adds rounds on one policy, and this config "
            f"({type(exp).__name__}) has none that a finished run could go on with; "
            "leave it out, and give another --workdir for another config"
        )
    scale = dict(values["scale"])
    return {**values, "scale": {**scale, "rounds": scale["rounds"] + more}}


@dataclasses.dataclass(frozen=True)
class Checked[Item]:
    """An experiment with everything that can be wrong without compiling checked.

    `train`: items to learn from, in lists; `blank`: the base without weights.
    """

    kind: Kind[Any, Item, Any]
    train: list[list[Item]]
    heldout: list[Item]
    blank: policies.Policy
    task: Task[Item]
    mesh: Mesh | None


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
    checked = check(exp, values)
    with interrupts.units(), contextlib.ExitStack() as stack:
        times = stack.enter_context(backend.compile_times())
        rising = checked.kind.rising
        finished = claim(workdir, values, stack, rising=rising)
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
            records.write_json(workdir / SUMMARY, summary)
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


def check(exp: Experiment, values: dict[str, Any]) -> Checked[Any]:
    """Loads what the experiment is about, and refuses what cannot be run.

    Raises:
      ValueError, OSError: bad input, in one line.
    """
    check_same(values)
    kind = kind_of(exp)
    train, heldout = kind.load(exp)
    blank = policies.describe(exp.model, turn_end=exp.turn_end)
    adapters = {"inner": exp.inner.lora}
    if exp.imitate is not None:
        adapters["imitate"] = exp.imitate.lora
    for name, cfg in adapters.items():
        lora.check(blank.arch, targets=cfg.targets, rank=cfg.rank, name=f"{name}.lora")
    task = kind.make(exp, blank, list(itertools.chain(*train)), heldout)
    backend.cache_programs()
    distributed.keep_cache_if_shared()
    mesh = meshes.of_devices(data=exp.mesh.data, model=exp.mesh.model)
    if mesh is not None:
        blank = policies.on_mesh(exp.model, blank)
    distributed.check_mesh(mesh)
    return Checked(kind, train, heldout, blank, task, mesh)


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


def open_run[Item](
    exp: Experiment,
    values: dict[str, Any],
    checked: Checked[Item],
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
    sizes = prepared(exp, checked, workdir, say=say)
    merges = exp.imitate is not None
    base = policies.load(
        exp.model, checked.blank, seed=exp.seed, mesh=mesh, merges=merges
    )
    # Not before: a config that cannot run must not claim the workdir.
    if leads:
        if records.risen(workdir, values, checked.kind.rising):
            arms = exp.last_arms if isinstance(exp, PassageRounds | FewShot) else ()
            more_rounds.extend(workdir, values, summary=SUMMARY, last_arms=arms)
        records.open_workdir(workdir, values)
    journal = stack.enter_context(
        distributed.open_journal(workdir / JOURNAL, summed=True)
    )
    if leads:
        check_journal(journal, workdir)
    check_items(journal, task, checked.train, checked.heldout)
    state = trials.Run(
        exp=exp,
        inner=first_sizes(journal, sizes, shards=meshes.shards(mesh)),
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
) -> None:
    """Refuses other items, prompts or code of a task than the workdir began with.

    A config only names files: of data, of prompts, of code.

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
    if now["heldout"] != first["heldout"] or any(
        a != b for a, b in zip(now["train"], first["train"], strict=False)
    ):
        raise ValueError(
            "this workdir was begun with other data, prompts or code than task and "
            "propose.prompt give now: a file has changed; restore it, or give another "
            "--workdir"
        )
    if len(now["train"]) > len(first["train"]):
        # Added rounds, once begun, go on with these.
        journal.put("items", now)


def prepared(
    exp: Experiment,
    checked: Checked[Any],
    workdir: Path,
    *,
    say: Callable[[str], None],
) -> inner.EngineConfig:
    """The inner loop's sizes (`size`); other programs are compiled beside its own.

    A run that goes on compiles what it still needs, when it needs it.

    Raises:
      ValueError: see `capacity.choose`.
    """
    kind, mesh, arch = checked.kind, checked.mesh, checked.blank.arch
    begun = (workdir / JOURNAL).exists()
    if kind.expect is None or mesh is not None or begun or not exp.adapters:
        return size(exp, arch, mesh, say=say)
    if not compiling.pays():
        return size(exp, arch, mesh, say=say)
    with compiling.beside() as compiler:
        kind.expect(
            exp, checked.blank, checked.task, checked.train, checked.heldout, compiler
        )
        return size(exp, arch, mesh, say=say)


def size(
    exp: Experiment,
    arch: decoder.Arch,
    mesh: Mesh | None,
    *,
    say: Callable[[str], None],
) -> inner.EngineConfig:
    """The inner loop's sizes; where no adapter is trained nothing is compiled.

    Raises:
      ValueError: see `capacity.choose`.
    """
    if exp.adapters:
        return fitting(exp, arch, mesh, say=say)
    least = exp.inner.step_tokens or exp.inner.row_tokens
    return capacity.build(exp.inner, step_tokens=least, adapters=1)


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
    arch: decoder.Arch,
    mesh: Mesh | None,
    *,
    say: Callable[[str], None],
) -> inner.EngineConfig:
    """The inner loop's sizes for the devices here; compiles its program.

    Raises:
      ValueError: see `capacity.choose`.
    """
    limit = backend.memory_limit(jax.local_devices()[0])
    limit = min(distributed.everyone(limit))
    master = 0 if exp.imitate is None else capacity.master_bytes(arch, mesh)
    limit -= master
    if exp.imitate is not None and exp.imitate.start == "base":
        # It is kept beside the policy, for every round to start from.
        limit -= capacity.base_bytes(arch, mesh)
    cfg, memory = capacity.choose(
        arch,
        exp.inner,
        limit=limit,
        adapters=exp.adapters,
        lines=exp.lines_per_step,
        mesh=mesh,
        options=exp.engine,
    )
    say(
        f"inner loop: steps of {cfg.plan.step_tokens} tokens, {cfg.plan.slots} slots, "
        f"up to {cfg.pool} adapters at a time; memory {memory.line()}"
    )
    if master:
        say(
            f"model.base_dtype={arch.base_dtype!r}: beside it {formatting.size(master)}"
            f" of weights in {arch.dtype}, which rounds are merged into"
        )
    return cfg


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
    return dataclasses.replace(
        cfg, plan=PlanConfig(**first["plan"]), pool=first["pool"]
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
        unit = UnitKey.parse(key)
        phase = unit.stage if unit.kind == unit_key.ADAPT else key
        seconds[phase] = seconds.get(phase, 0.0) + value["seconds"]
        adapters += value.get("adapters", len(value.get("trials", ())))
        tokens += value.get("tokens", 0)
    return {"adapters": adapters, "tokens": tokens, "seconds": seconds}


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
