"""One run from the first check to the last file: what `train.run` calls.

Order: check everything that can be wrong without compiling; open the workdir; walk the
ladder's arms that need no training of the policy; then the rounds, each followed by its
own arm.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from seal_jax import (
    capacity,
    config,
    distributed,
    grade,
    inner,
    judge,
    ladder,
    lora,
    mesh,
    metrics,
    model,
    plan,
    policy,
    records,
    report,
    report_html,
    rest_em,
    runtime,
    self_edit,
    trials,
)
from seal_jax.tasks import squad, world
from seal_jax.tasks.common import Passage

SUMMARY = "summary.json"


def run(
    exp: config.Experiment,
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
    templates = (
        self_edit.load_template(exp.propose.prompt, "propose"),
        self_edit.load_template(exp.answer.prompt, "answer"),
    )
    train, heldout = load_passages(exp)
    blank = policy.describe(exp.model)
    check_fit(exp, blank, templates, [*itertools.chain(*train), *heldout])
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
        # The judge is asked by one process; `list` is not called.
        score = scorer(exp.grade, workdir) if leads else list
        sizes = fitting(exp, blank.arch, devices, say=say)
        # In a list, to be handed over: see `walk` on its weights.
        base = [policy.load(exp.model, seed=exp.seed, on=devices)]
        # Not before: a config that cannot run must not claim the workdir.
        if leads:
            records.open_workdir(workdir, values)
        journal = stack.enter_context(distributed.Journal(workdir / "journal.jsonl"))
        state = trials.Run(
            exp=exp,
            inner=kept(journal, sizes, shards=mesh.shards(devices)),
            mesh=devices,
            journal=journal,
            metrics=stack.enter_context(
                metrics.Metrics(workdir) if leads else metrics.Unwritten()
            ),
            propose_template=templates[0],
            answer_template=templates[1],
            score=lambda items: distributed.share(lambda: score(items)),
            say=say,
        )
        summary = walk(state, base.pop(), train, heldout, workdir)
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
    exp: config.Experiment,
    arch: model.ModelConfig,
    devices: Mesh | None,
    *,
    say: Callable[[str], None],
) -> inner.InnerConfig:
    """The inner loop's sizes for the devices here; compiles its program.

    Raises:
      ValueError: see `capacity.choose`.
    """
    scale = exp.scale
    most = max(
        scale.passages * scale.edits * scale.seeds,
        scale.heldout_passages * scale.heldout_edits * scale.heldout_seeds,
    )
    own = runtime.memory_limit(jax.local_devices()[0])
    limit = min(distributed.everyone(own))
    cfg, memory = capacity.choose(
        arch, exp.inner, limit=limit, adapters=most, on=devices
    )
    say(
        f"inner loop: steps of {cfg.plan.step_tokens} tokens, {cfg.plan.slots} slots, "
        f"up to {cfg.pool} adapters at a time; memory {memory.line()}"
    )
    return cfg


def kept(
    journal: records.Journal, cfg: inner.InnerConfig, *, shards: int
) -> inner.InnerConfig:
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
        cfg, plan=plan.PlanConfig(**first["plan"]), pool=first["pool"]
    )


def walk(
    state: trials.Run,
    base: policy.Policy,
    train: Sequence[Sequence[Passage]],
    heldout: Sequence[Passage],
    workdir: Path,
) -> dict[str, Any]:
    """The experiment proper; everything before it was preparation."""
    row = functools.partial(ladder.row, state, passages=heldout)
    rows = [
        row(base, name=name)
        for name in config.BASE_ARMS
        if name in state.exp.ladder and name != "oracle"
    ]
    last = [row(base, name="oracle")] if "oracle" in state.exp.ladder else []
    if "random_kept" in state.exp.ladder:
        control = rest_em.control(state, base, train, workdir)
        rows.append(row(control, name="random_kept"))
        del control
    edits, rounds, pupil = [], [], base
    del base  # On a large model two sets of weights are one too many.
    for index, passages in enumerate(train, start=1):
        pupil, new_edits, line = rest_em.one_round(
            state, pupil, passages, round_index=index, workdir=workdir
        )
        edits += new_edits
        rounds.append(line)
        rest_em.save_policy(state, pupil, workdir, round_index=index)
        if distributed.leads():
            records.write_jsonl(workdir / "edits.jsonl", edits)
        known = {f"round/{k}": v for k, v in line.items() if v is not None}
        state.metrics.log(index, known)
        rows.append(row(pupil, name=f"round_{index}"))
    rows += last
    heldout_edits = [edit for r in rows for edit in r["edits"]]
    if distributed.leads():
        records.write_jsonl(workdir / "heldout.jsonl", heldout_edits)
    for i, r in enumerate(ladder.table(rows)):
        state.metrics.log(i, {f"ladder/{r['name']}": r["mean"]})
    return {
        "ladder": ladder.table(rows),
        "paired": ladder.pairs(rows),
        "rounds": rounds,
        **costs(state.journal),
    }


def costs(journal: records.Journal) -> dict[str, Any]:
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
        adapters += len(value.get("trials", ()))
        tokens += value.get("tokens", 0)
    return {"adapters": adapters, "tokens": tokens, "seconds": seconds}


def finished_summary(workdir: Path) -> dict[str, Any] | None:
    """The summary of a run that ended with nothing left to ask for."""
    path = workdir / SUMMARY
    if not path.exists():
        return None
    summary = records.read_json(path)
    incomplete = any(row.get("missing") for row in summary["ladder"])
    return None if incomplete else summary


# Preparation


def load_passages(
    exp: config.Experiment,
) -> tuple[list[list[Passage]], list[Passage]]:
    """Training passages of each round, disjoint, and the held-out ones.

    Raises:
      ValueError: too few passages, a passage in both sets, or one without questions.
    """
    task, scale = exp.task, exp.scale
    wanted = scale.rounds * scale.passages
    if task.name == "world":
        make = functools.partial(
            world.passages, seed=task.shuffle_seed, forward_share=task.forward_share
        )
        train = make("train", start=task.train_start, count=wanted)
        heldout = make(
            "heldout", start=task.heldout_start, count=scale.heldout_passages
        )
    else:
        if task.forward_share:
            raise ValueError(
                f"task.forward_share={task.forward_share} belongs to "
                "task.name='world'; use 0.0"
            )
        train = squad.passages(
            task.train,
            split=task.train_split,
            seed=task.shuffle_seed,
            start=task.train_start,
            count=wanted,
        )
        heldout = squad.passages(
            task.heldout,
            split=task.heldout_split,
            seed=task.shuffle_seed,
            start=task.heldout_start,
            count=scale.heldout_passages,
        )
    shared = {p.text for p in train} & {p.text for p in heldout}
    if shared:
        raise ValueError(
            f"{len(shared)} held-out passages are training passages too, such as "
            f"{min(shared)[:40]!r}; set task.train_start and task.heldout_start apart"
        )
    if "oracle" in exp.ladder and heldout[0].oracle is None:
        raise ValueError(
            f"ladder: 'oracle' needs a task that writes ideal edits, task.name="
            f"{task.name!r} does not; leave it out"
        )
    starts = range(0, wanted, scale.passages)
    return [train[i : i + scale.passages] for i in starts], heldout


def scorer(cfg: config.GradeConfig, workdir: Path) -> Callable[..., list]:
    """The grader as one function of (question, gold, answer) triples.

    Raises:
      judge.JudgeError: the endpoint refuses.
    """
    if cfg.name == "judge":
        judge.check(cfg.judge)
        return functools.partial(
            judge.grade, cfg=cfg.judge, cache_path=workdir / "judge.jsonl"
        )
    rule = grade.LOCAL[cfg.name]
    if cfg.name == "recall":
        rule = functools.partial(grade.by_recall, threshold=cfg.threshold)
    return lambda items: [rule(*item) for item in items]


def check_fit(
    exp: config.Experiment,
    base: policy.Policy,
    templates: tuple[str, str],
    passages: Sequence[Passage],
) -> None:
    """Refuses what would not fit the model, before anything is compiled.

    Raises:
      ValueError: LoRA targets or ranks the model does not have; a prompt, a passage or
        a training line longer than its context.
    """
    context = base.arch.max_position
    adapters = {"inner.lora": exp.inner.lora, "imitate.lora": exp.imitate.lora}
    for name, cfg in adapters.items():
        lora.check(base.arch, targets=cfg.targets, rank=cfg.rank, name=name)
    limit = trials.longest_line(exp, base)

    def fits(what: str, passage: Passage, text: str, room: int, fix: str) -> None:
        length = len(base.encode(text))
        if length > room:
            raise ValueError(
                f"passage {passage.id} ({passage.title!r}): {what} takes {length} "
                f"tokens, {room} fit; {fix}"
            )

    for passage in passages:
        fits(
            "its training line",
            passage,
            f"{passage.title}\n{passage.text}",
            limit,
            "leave it out of the data, or raise inner.row_tokens"
            if limit < context
            else "leave it out of the data",
        )
        fits(
            "its self-edit prompt",
            passage,
            self_edit.propose_prompt(templates[0], passage),
            context - exp.propose.max_tokens,
            f"lower propose.max_tokens={exp.propose.max_tokens}",
        )
        for question in passage.questions:
            fits(
                "a question prompt",
                passage,
                self_edit.answer_prompt(templates[1], passage, question.question),
                context - exp.answer.max_tokens,
                f"lower answer.max_tokens={exp.answer.max_tokens}",
            )
