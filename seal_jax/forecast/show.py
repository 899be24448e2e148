"""The pages of a dry run, as lines."""

import json
from collections.abc import Iterator
from typing import Any

from seal_jax.forecast import machine, shapes, work
from seal_jax.lmsi.settings import Lmsi
from seal_jax.rounds.experiment import Experiment
from seal_jax.runtime import files, formatting, meshes, records


def lines(
    exp: Experiment, values: dict[str, Any], *, rate: float = 0.0
) -> Iterator[str]:
    """What a run of this experiment would do and cost on this machine.

    Args:
      exp: the experiment.
      values: its config as written.
      rate: trained tokens a second that were measured, or 0: modelled.

    Raises:
      ValueError, FileNotFoundError: a model directory, or a mesh, that cannot be.
    """
    # What cannot be is said before anything else.
    shape, each = shapes.of(exp.model), work.text(exp)
    yield f"config ({records.config_hash(values)}, {type(exp).__name__})"
    for key, value in records.leaves(files.to_plain(values)).items():
        yield f"  {key}={json.dumps(value)}"
    yield f"model {exp.model.path}: shape from {shape.basis}"
    phases = work.phases(exp, each)
    sized = None
    if shape.arch is not None:
        mesh = meshes.of_devices(data=exp.mesh.data, model=exp.mesh.model)
        sized = machine.size(exp, shape.arch, mesh)
    yield from _plan(exp, each, phases, sized)
    yield "memory on one device"
    if shape.arch is None or sized is None:
        yield "  not counted: the model's shape is not known here"
    else:
        for line in (
            *machine.memory_lines(sized),
            *machine.gradient_lines(exp, shape.arch, sized),
        ):
            yield f"  {line}"
    yield "programs to be compiled"
    for name in machine.programs(exp, phases):
        yield f"  {name}"
    yield "expected time"
    if shape.arch is None or sized is None:
        yield "  not known: the model's shape is not known here"
        return
    took = machine.seconds(exp, shape.arch, sized, phases, each, rate)
    training = formatting.duration(took.training)
    if isinstance(exp, Lmsi):
        yield (
            f"  fine-tuning the policy, if all chains are kept, {training} "
            f"(rows of {machine.row_tokens(exp)} tokens; longer with longer prompts)"
        )
    else:
        yield f"  training the adapters {each.bound} {training}"
    if took.writing is not None:
        yield f"  writing and answers at least {formatting.duration(took.writing)}"
    yield f"  rests on: {took.basis}"
    apart = (
        "the host"
        if isinstance(exp, Lmsi)
        else ("fine-tuning of the policy, the host, a judge")
    )
    yield f"  not in it: compiling, {apart}"
    yield "nothing was downloaded, loaded or written"


def _plan(
    exp: Experiment,
    each: work.Text,
    phases: list[work.Phase],
    sized: machine.Sized | None,
) -> Iterator[str]:
    yield "plan"
    yield f"  lines and tokens of a text are estimated: {each.basis}"
    if each.left_out:
        yield f"  {each.left_out}"
    yield "  global steps: with full rows; those of real texts are some 80 % full"
    if sized is not None and exp.adapters:
        plan = sized.cfg.plan
        yield (
            f"  inner loop: steps of {plan.step_tokens} tokens, {plan.slots} slots, up "
            f"to {sized.cfg.pool} adapters at a time"
        )
    head = ("phase", "texts", "adapters", "steps each", "tokens", "global steps")
    head += ("answers", "imitated, most")
    teaches = any(phase.taught for phase in phases)
    head += ("teachers read",) * teaches
    compares = any(phase.compared for phase in phases)
    head += ("of those read again",) * compares
    rows = []
    per_step = exp.lines_per_step
    scores = any(phase.scored for phase in phases)
    head += ("gradients of, tokens",) * scores
    for phase in phases:
        own = each.epochs * -(-phase.lines // per_step)
        steps = None
        if sized is not None and exp.adapters:
            steps = machine.steps(phase, each, sized.cfg, per_step)
        rows.append(
            (
                phase.name,
                *map(formatting.count, (phase.written, phase.adapters, own)),
                *map(formatting.count, (phase.trained(each), steps)),
                *map(formatting.count, (phase.answers, phase.imitated)),
                *[formatting.count(phase.taught)] * teaches,
                *[formatting.count(phase.compared)] * compares,
                *[formatting.count(phase.scored)] * scores,
            )
        )
    for line in formatting.ruled(head, rows).split("\n"):
        yield f"  {line}"
    sums = [sum(p.adapters for p in phases), sum(p.written for p in phases)]
    yield f"  all: {sums[0]:,} adapters, {sums[1]:,} texts"
