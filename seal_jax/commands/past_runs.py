"""What a run can be asked for later: its policies, and the adapter of any edit.

Deltas of the policy are kept as checkpoints, adapters are not: they are trained again,
from the same text, keys and sizes, on the policy of their round.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seal_jax.experiment import checks, kinds
from seal_jax.generation import policies
from seal_jax.models import lora
from seal_jax.report import edit_names
from seal_jax.report.edit_names import Place
from seal_jax.rounds import learn, pools, trials
from seal_jax.rounds.few_shot_settings import FewShot
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import checkpoint, files, prng
from seal_jax.tasks.base import Edit
from seal_jax.training import capacity, packed
from seal_jax.training.settings import PlanConfig


@dataclasses.dataclass(frozen=True)
class Past:
    """A run of rounds, finished or not, and its config, checked."""

    workdir: Path
    exp: PassageRounds | FewShot
    checked: checks.Checked[Any]
    edits: list[dict[str, Any]]

    @property
    def rounds(self) -> int:
        """Rounds that left edits."""
        return max((row["round"] for row in self.edits), default=0)


def read(workdir: str) -> Past:
    """The run of a workdir.

    Raises:
      ValueError: it holds no run of rounds, or files that were altered.
      OSError: a file cannot be read.
    """
    folder = Path(workdir)
    values = files.read_json(folder / "config.json")
    if not isinstance(values, dict):
        raise ValueError(f"{folder / 'config.json'}: must hold one JSON object")
    exp = kinds.read(values)
    if not isinstance(exp, PassageRounds | FewShot):
        raise ValueError(
            f"{workdir}: a run of the kind {type(exp).__name__} leaves no policy of "
            "rounds; give the workdir of rounds on passages or few-shot tasks"
        )
    path = folder / "edits.jsonl"
    rows = files.read_jsonl(path) if files.is_file(path) else []
    wanted = {"round": int, "edit": int, "prompt": str, "text": str, "losses": list}
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or any(
            not isinstance(row.get(key), kind) for key, kind in wanted.items()
        ):
            raise ValueError(
                f"{path}: row {i} has no {', '.join(wanted)}; restore the file"
            )
    return Past(folder, exp, checks.check(exp, values), rows)


def policy_after(past: Past, index: int) -> policies.Policy:
    """The policy after round `index`, of which 0 is the base.

    Raises:
      ValueError: a checkpoint that does not fit; or the base cannot be read.
    """
    exp, checked = past.exp, past.checked
    base = policies.load(exp.model, checked.blank, seed=exp.seed, mesh=checked.mesh)
    policy, lora_cfg = base, exp.imitate.lora
    like = jax.eval_shape(
        lambda: lora.init(
            jax.random.key(0),
            base.arch,
            targets=lora_cfg.targets,
            rank=lora_cfg.rank,
        )
    )
    directory = past.workdir / "checkpoints" / learn.POLICY
    # A round that kept nothing has none, and changed nothing.
    there = [step for step in checkpoint.steps(directory) if step <= index]
    from_base = exp.imitate.start == "base"
    for step in there[-1:] if from_base else there:
        delta, _ = checkpoint.restore(directory, step, like)
        policy = policy.merged(delta, consume=True)
    return policy


def find(past: Past, name: str) -> Place:
    """The edit "ROUND/ITEM/EDIT"; the item by its number or its id.

    Raises:
      ValueError: there is none.
    """
    first = 0
    for place in edit_names.places(past.edits):
        ids = {str(place.item), place.id}
        match name.split("/"):
            case [r, item, edit] if (r, edit) == (
                str(place.round),
                str(place.edit),
            ) and item in ids:
                return place
        first = first or place.round
    raise ValueError(
        f"--edit={name[:80]!r}: must be ROUND/ITEM/EDIT of the {len(past.edits)} edits "
        f"in {past.workdir / 'edits.jsonl'}; see --list"
    )


def kept(past: Past, index: int) -> list[Place]:
    """The edits of a round that were kept.

    Raises:
      ValueError: there is none.
    """
    found = [
        p
        for p in edit_names.places(past.edits)
        if p.round == index and p.row.get("kept") is True
    ]
    if not found:
        raise ValueError(
            f"{past.workdir}: no edit of round {index} is kept; --list shows all"
        )
    return found


def adapters(
    past: Past,
    wanted: Sequence[Place],
    seed: int,
    say: Callable[[str], None],
) -> Iterator[tuple[Place, packed.TrainedAdapters]]:
    """Adapters of edits of one round, of the same seed each, trained again.

    Raises:
      ValueError: the edit was refused, so that there never was one; or there is no
        such seed, or the run's items are not those that it had.
    """
    exp, task = past.exp, past.checked.task
    written = [_written(past, place, seed) for place in wanted]
    jobs = [task.job(*pair, ()) for pair in written]
    policy = policy_after(past, wanted[0].round - 1)
    for place, pair, job in zip(wanted, written, jobs, strict=True):
        names = [(place.round, place.item, place.edit, seed)]
        waves = trials.waves_of(exp, task, policy, [pair], names)
        work = trials.work_of(exp.seed, [job], names)
        (pool,) = pools.train(
            policy,
            dataclasses.replace(work, waves=waves),
            pools.Held(),
            key=prng.root(past.exp.seed),
            cfg=_sizes(past),
            mesh=past.checked.mesh,
            phase=f"edit {place.name}",
            say=say,
        )
        yield place, pool.trained


def _written(past: Past, place: Place, seed: int) -> tuple[Any, Edit]:
    """The item of an edit, and the edit as it was trained.

    Raises:
      ValueError: see `adapters`.
    """
    row = place.row
    if row.get("refused"):
        raise ValueError(
            f"this edit was refused ({row['refused']}) and never trained; give another,"
            " see --list"
        )
    # What a reward asks of no adapter was trained in the run for none.
    trained = len(row["losses"]) or past.exp.scale.seeds
    if not 0 <= seed < trained:
        raise ValueError(
            f"--seed={seed}: this edit has adapters of {trained} seeds, from 0 on; "
            "give one of these"
        )
    item = past.checked.train[place.round - 1][place.item]
    if getattr(item, "id", None) != edit_names.item_id(row):
        raise ValueError(
            f"{past.workdir}: item {place.item} of round {place.round} is not that of "
            "the run, so its data has changed; restore it"
        )
    pairs = tuple((question, answer) for question, answer in row.get("pairs", ()))
    edit = Edit(place.item, place.edit, row["prompt"], row["text"], pairs=pairs)
    return item, edit


def _sizes(past: Past) -> Any:
    """The engine as it was, for one adapter at a time."""
    exp = past.exp
    cfg = capacity.build(exp.inner, step_tokens=exp.inner.row_tokens, adapters=1)
    cfg = dataclasses.replace(cfg, pool=1, **dataclasses.asdict(exp.engine))
    for row in files.read_jsonl(past.workdir / "journal.jsonl"):
        match row:
            case {"key": "sizes", "value": {"plan": dict(plan)}}:
                return dataclasses.replace(cfg, plan=PlanConfig(**plan))
    return cfg


def drift(place: Place, seed: int, trained: packed.TrainedAdapters) -> float | None:
    """How far its training loss is from the run's, as a share; None: not known."""
    losses = place.row["losses"]
    loss, before = float(trained.loss_A[0]), losses[seed] if losses else None
    if not isinstance(before, int | float) or not np.isfinite([loss, before]).all():
        return None
    return abs(loss - before) / max(abs(before), 1e-9)
