"""A run of many seeds: `experiments` on a chunk of them at a time, then the summary.

A chunk is one unit of the journal: a run that is killed loses at most the chunk that it
was in.
"""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seal_jax.generation import policies
from seal_jax.models import hf
from seal_jax.rounds import (
    experiments,
    ladder_rows,
    on_device,
    round_inputs,
    seeds_summary,
    summary,
    token_forms,
    trials,
)
from seal_jax.rounds.experiments import ExperimentConfig, Outcome, Plan
from seal_jax.rounds.ladder_rows import CONTROL, round_name
from seal_jax.rounds.over_seeds_settings import OverSeeds
from seal_jax.rounds.token_forms import Words
from seal_jax.rounds.token_steps import Text
from seal_jax.rounds.trials import Run
from seal_jax.rounds.unit_key import UnitKey
from seal_jax.runtime import interrupts, meshes
from seal_jax.tasks import knowledge_setup
from seal_jax.tasks.knowledge import Knowledge
from seal_jax.tasks.passage import Passage

# Arms that no policy writes, in the order of the program's rows.
FIXED = ("passage_only", "sentence_split", "oracle")


def load(exp: OverSeeds) -> tuple[list[list[Passage]], list[Passage]]:
    """The passages of all seeds: a list for each seed and round, then those held out.

    Raises:
      ValueError: see `knowledge_setup.load`.
    """
    loaded = [knowledge_setup.load(exp.at(i)) for i in range(exp.over_seeds.count)]
    return (
        [items for train, _ in loaded for items in train],
        [passage for _, heldout in loaded for passage in heldout],
    )


def walk(
    run: Run[OverSeeds, Passage],
    base: policies.Policy,
    train: Sequence[Sequence[Passage]],
    heldout: Sequence[Passage],
    workdir: Path,
) -> dict[str, Any]:
    """All seeds, a chunk at a time; the summary, without what it cost.

    Raises:
      ValueError: the model's tokenizer has no form on tokens, or a chunk cannot be cut
        over the mesh.
    """
    del workdir
    exp, task = run.exp, run.task
    assert isinstance(task, Knowledge)
    tables, cfg = prepare(exp, task, base, [*itertools.chain(*train), *heldout])
    count, chunk = exp.over_seeds.count, exp.over_seeds.chunk
    if chunk % run.shards:
        raise ValueError(
            f"over_seeds.chunk={chunk} must be a multiple of mesh.data={run.shards}, "
            f"which share its seeds; use {run.shards} or mesh.data=1"
        )
    seeds: list[dict[str, Any]] = []
    for index, first in enumerate(range(0, count, chunk)):
        here = range(first, first + chunk)

        def unit(here: range = here) -> dict[str, Any]:
            interrupts.check()
            begin = time.monotonic()
            plans = [plan_of(exp, i, train, heldout, task, tables, cfg) for i in here]
            outcome = call(exp, base, plans, cfg, mesh=run.mesh)
            told = [
                one_seed(exp.at(i), base, plan, outcome, n)
                for n, (i, plan) in enumerate(zip(here, plans, strict=True))
            ]
            return {
                "seeds": told,
                "adapters": sum(seed["adapters"] for seed in told),
                "seconds": time.monotonic() - begin,
            }

        name = str(UnitKey("seeds", "chunk", index))
        new = name not in run.journal
        if new:
            run.say(f"seeds {exp.seed + first} to {exp.seed + here[-1]} of {count}")
        done = run.journal.cached(name, unit)
        seeds += done["seeds"]
        if new and run.whole is not None:
            run.whole.add(done["adapters"])
            run.say(run.whole.text())
    found = seeds_summary.summary(seeds)
    # Known at the end alone: each number is a mean over all seeds.
    for line in found["rounds"]:
        run.metrics.log(line["round"], summary.metrics_of(line))
    ladder_rows.log_means(run.metrics, found["ladder"])
    return found


def prepare(
    exp: OverSeeds,
    task: Knowledge,
    base: policies.Policy,
    passages: Sequence[Passage],
) -> tuple[Words, ExperimentConfig]:
    """What all seeds share: the tokenizer's tables, and what is compiled.

    Raises:
      ValueError: see `round_inputs.words`.
    """
    tables = round_inputs.words(base)
    sizes = round_inputs.sizes(exp, task, passages, fixed_arms(exp))
    of_rounds, of_rows = (
        round_inputs.config(exp, base, sizes, edits=edits, seeds=seeds)
        for edits, seeds in (
            (exp.scale.edits, exp.scale.seeds),
            (exp.scale.heldout_edits, exp.scale.heldout_seeds),
        )
    )
    return tables, ExperimentConfig(of_rounds, of_rows)


def fixed_arms(exp: OverSeeds) -> list[str]:
    """The rows with edits that no policy wrote."""
    return [arm for arm in FIXED if arm in exp.ladder]


def plan_of(
    exp: OverSeeds,
    index: int,
    train: Sequence[Sequence[Passage]],
    heldout: Sequence[Passage],
    task: Knowledge,
    tables: Words,
    cfg: ExperimentConfig,
) -> Plan:
    """What seed `index` reads, of the passages of all."""
    scale, own = exp.scale, exp.at(index)
    rounds = train[index * scale.rounds : (index + 1) * scale.rounds]
    held = heldout[
        index * scale.heldout_passages : (index + 1) * scale.heldout_passages
    ]

    def of_rounds(stage: int) -> on_device.Inputs:
        made = [
            round_inputs.inputs(
                own, task, items, tables, cfg.round, index=r, stage=stage
            )
            for r, items in enumerate(rounds, start=1)
        ]
        return stacked(made)

    width = max(exp.propose.max_tokens, cfg.heldout.sizes.fixed)
    arms = [
        Text(*token_forms.fixed(task, held, arm, width=width))
        for arm in fixed_arms(exp)
    ] or [Text(np.zeros((0, len(held), width), np.int32), np.zeros((0, len(held))))]
    return Plan(
        rounds=of_rounds(trials.IMITATE),
        control=of_rounds(trials.CONTROL) if CONTROL in exp.ladder else None,
        heldout=round_inputs.inputs(own, task, held, tables, cfg.heldout, index=0),
        fixed=stacked(arms) if fixed_arms(exp) else arms[0],
    )


def stacked[Tree](trees: Sequence[Tree]) -> Tree:
    """Trees of numpy arrays as one, along a new first axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def call(
    exp: OverSeeds,
    base: policies.Policy,
    plans: Sequence[Plan],
    cfg: ExperimentConfig,
    *,
    mesh: jax.sharding.Mesh | None,
) -> Outcome:
    """The seeds of these plans in one call; leaves `[seeds, ...]`, on the host."""
    outcome = experiments.experiments(
        on_device.State(base.params),
        meshes.put(stacked(plans), mesh, "data"),
        cfg=cfg,
        together=exp.over_seeds.together,
        mesh=mesh,
    )
    if mesh is not None:
        outcome = meshes.gather(outcome, mesh)
    return jax.device_get(outcome)


def one_seed(
    exp: OverSeeds, base: policies.Policy, plan: Plan, outcome: Outcome, index: int
) -> dict[str, Any]:
    """What the summary needs of one seed, as JSON: its rows and its rounds.

    Args:
      exp: the seed's own.
      base: the policy that it began with, whose tokens texts are.
      plan: what it read.
      outcome: of a chunk of seeds.
      index: which of them.
    """
    own: Outcome = jax.tree.map(lambda leaf: leaf[index], outcome)
    names = [*fixed_arms(exp), "self_edits"]
    names += [CONTROL] * (own.control_kept_PK is not None)
    names += [round_name(r) for r in range(1, exp.scale.rounds + 1)]
    asked_P = (plan.heldout.sheet.prompts_size > 0).sum(-1)
    rows = {
        name: seeds_summary.row(
            own.rows.trials.right[i],
            own.rows.trials.empty[i],
            own.rows.trials.failed[i],
            own.rows.refused_PE[i],
            asked_P,
        )
        for i, name in enumerate(names)
    }
    rows["base"] = seeds_summary.row(
        own.rows.base_right_P[:, None, None],
        own.rows.base_empty_P[:, None, None],
        np.zeros((len(asked_P), 1, 1), bool),
        np.zeros((len(asked_P), 1), bool),
        asked_P,
    )
    asked_RP = (plan.rounds.sheet.prompts_size > 0).sum(-1)
    rounds = []
    for r, asked in enumerate(asked_RP):
        done = jax.tree.map(lambda leaf, r=r: leaf[r], own.rounds)
        line = seeds_summary.round_line(
            done.trials.right,
            done.trials.empty,
            done.trials.failed,
            done.edits.refused_PE,
            done.baseline_P,
            done.kept_PK,
            asked,
        )
        written = seeds_summary.written_line(
            done.surprise.nats_PE, done.surprise.tokens_PE, _texts(base, done.edits)
        )
        rounds.append({"round": r + 1, **line, **written})
    trained = [line["trainings"] for line in rounds]
    trained += [row["trainings"] for name, row in rows.items() if name != "base"]
    return {
        "seed": exp.seed,
        "rows": {
            name: rows[name]
            for name in seeds_summary.row_names(exp.ladder, exp.scale.rounds)
        },
        "rounds": rounds,
        "adapters": sum(trained),
    }


def _texts(base: policies.Policy, edits: on_device.Edits) -> list[list[str]]:
    """The edits of each passage as texts."""
    ids_PEN, size_PE = edits.text
    return [
        [
            hf.decode(base.tokenizer, ids[:size].tolist())
            for ids, size in zip(ids_EN, size_E, strict=True)
        ]
        for ids_EN, size_E in zip(ids_PEN, size_PE, strict=True)
    ]
