"""What the work needs of this machine: sizes and memory, programs, seconds."""

import dataclasses
import math
from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from seal_jax.forecast.work import Phase, Text
from seal_jax.lmsi.settings import Lmsi
from seal_jax.models import decoder
from seal_jax.rounds.experiment import Experiment
from seal_jax.rounds.few_shot_settings import FewShot
from seal_jax.rounds.over_seeds_settings import OverSeeds
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import backend, formatting, meshes
from seal_jax.training import capacity, influence, inner, throughput
from seal_jax.training.capacity import Memory
from seal_jax.training.outer_rules import RULES

# A larger base is not compiled for a CPU, where that takes minutes to hours.
COMPILED_ON_CPU = 64 << 20

# Of the peak, by the modelled global steps of docs/engine.md on an H200: 4,096 tokens
# of a 7B model in 177.4 ms with adapters on q and v, 2,048 in 121.6 ms on all seven.
SHARES = {True: 0.66, False: 0.49}
MODELLED = "NVIDIA H200"
# Bytes a second of one, the constant of the modelled figures.
BANDWIDTH = 4.32e12


@dataclasses.dataclass(frozen=True)
class Sized:
    """The inner loop for this machine.

    `memory`: by part, None where no adapter is trained; `compiled`: whether its
    temporaries are counted. `limit`: bytes that may be used on a device; `base`: of the
    weights; `beside`: of weights that the inner loop does not see. `trouble`: why it
    cannot be run here, or empty.
    """

    cfg: inner.EngineConfig
    memory: Memory | None
    compiled: bool
    limit: int
    base: int
    beside: int
    shards: int
    trouble: str = ""


def device() -> str:
    """The device that counts rest on, for people."""
    first = jax.local_devices()[0]
    kind = "" if first.device_kind == first.platform else f" ({first.device_kind})"
    more = "" if first.platform != "cpu" else ": this machine has no accelerator"
    return f"{first.platform}{kind}{more}"


def size(exp: Experiment, arch: decoder.Arch, mesh: Mesh | None) -> Sized:
    """Sizes as `train` chooses them, by the compiled program where that is quick.

    Elsewhere open sizes are those of a device with memory enough.
    """
    here = jax.local_devices()[0]
    limit = backend.memory_limit(here)
    base = capacity.base_bytes(arch, mesh)
    beside, shards = 0, meshes.shards(mesh)
    if exp.imitate is not None:
        beside = capacity.master_bytes(arch, mesh)
        # Kept for every round to start from.
        kept = exp.imitate.start == "base"
        # Without labels every arm begins with it.
        beside += base if kept or isinstance(exp, Lmsi) else 0
    sizes = exp.inner
    least = sizes.row_tokens * (exp.lines_per_step + exp.engine.divergence)
    rows = -(-capacity.STEP_TOKENS // sizes.row_tokens) * sizes.row_tokens
    cfg = capacity.build(
        sizes,
        step_tokens=sizes.step_tokens or max(rows, least),
        adapters=-(-exp.adapters // shards),
        by_slot=capacity.reads_in_place(arch, sizes, mesh, exp.engine),
    )
    cfg = dataclasses.replace(cfg, **dataclasses.asdict(exp.engine))
    found = Sized(cfg, None, False, limit, base, beside, shards)
    if not exp.adapters:
        return found
    if here.platform == "cpu" and base > COMPILED_ON_CPU:
        memory = capacity.counted(arch, cfg, mesh)
        over = memory.total + beside > limit
        trouble = "what is counted does not fit" if over else ""
        return dataclasses.replace(found, memory=memory, trouble=trouble)
    try:
        cfg, memory = capacity.choose(
            arch,
            sizes,
            limit=limit - beside,
            adapters=exp.adapters,
            lines=exp.lines_per_step,
            mesh=mesh,
            options=exp.engine,
        )
    except ValueError as error:
        memory = capacity.counted(arch, cfg, mesh)
        return dataclasses.replace(found, memory=memory, trouble=str(error))
    return dataclasses.replace(found, cfg=cfg, memory=memory, compiled=True)


def gradient_lines(exp: Experiment, arch: decoder.Arch, sized: Sized) -> list[str]:
    """What self-edits' gradients take on a device, if any are measured.

    Counted from shapes: temporaries are those of a training step without its optimizer.
    """
    if not isinstance(exp, PassageRounds) or not exp.select.gradients:
        return []
    size = influence.sizes(
        sized.cfg,
        targets=exp.scale.passages,
        most=exp.select.written(exp.scale.edits),
        shards=sized.shards,
    )
    held = jax.eval_shape(lambda: influence.empty(arch, sized.cfg, size))
    count = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(held))
    return [
        f"gradients of self-edits, beside the base and in place of slots and finished "
        f"adapters: {formatting.size(count)} for {size.targets} items at a time"
    ]


def programs(exp: Experiment, phases: Sequence[Phase]) -> list[str]:
    """The larger programs that the run compiles, by the functions they are made of."""
    if isinstance(exp, OverSeeds):
        return ["experiments.experiments (rounds, control and ladder of a seed)"]
    found = []
    if any(phase.written for phase in phases):
        found.append("sample.prefill, admit and decode (propose)")
    if any(phase.taught for phase in phases):
        found.append("teacher.program, for each width of its rows (the bank)")
    if any(phase.scored for phase in phases):
        found.append("influence.run_block (gradients of self-edits)")
    if any(phase.adapters for phase in phases):
        found.append("packed.run_block (the inner loop)")
        found.append("sample.prefill, admit and decode, under adapters (answer)")
    if any(phase.answers and not phase.adapters for phase in phases):
        found.append("sample.prefill, admit and decode, without adapters (answer)")
    if isinstance(exp, PassageRounds | FewShot):
        if "log_likelihood" in exp.select.measured:
            found.append("sample.log_likelihood (the reward)")
        if "self_asked" in exp.select.measured:
            found.append("sample.prefill, admit and decode (quiz)")
        if RULES[exp.imitate.rule].weighed:
            found.append("prefer.log_probs and train_step, for each width of its rows")
        else:
            found.append("imitate.train_step, for each width of its rows")
        found.append("lora.merge")
    elif isinstance(exp, Lmsi):
        found.append("imitate.train_step, for each width of its rows")
        found.append("lora.merge")
    elif any(phase.imitated for phase in phases):
        found.append("finetune's step (all weights)")
    return found


def steps(phase: Phase, each: Text, cfg: inner.EngineConfig, per_step: int) -> int:
    """Global steps of a phase's training, at least: in full rows, pool after pool."""
    if not phase.adapters:
        return 0
    tile = cfg.plan.tile
    whole = math.ceil((phase.tokens or each.tokens) / tile) * tile
    positions = phase.adapters * phase.lines * each.epochs * whole
    pools = math.ceil(phase.adapters / cfg.pool)
    own = each.epochs * math.ceil(phase.lines / per_step)
    return max(math.ceil(positions / cfg.plan.step_tokens), pools * own)


@dataclasses.dataclass(frozen=True)
class Seconds:
    """Of training the adapters, and of writing and answering; `basis` of both.

    Without labels no adapter is trained, and the policy's fine-tuning is `training`.
    """

    training: float
    writing: float | None
    basis: str


def seconds(
    exp: Experiment,
    arch: decoder.Arch,
    sized: Sized,
    phases: Sequence[Phase],
    each: Text,
    rate: float,
) -> Seconds:
    """How long it may take.

    Args:
      exp: the experiment.
      arch: the model's shape.
      sized: the inner loop.
      phases: the work.
      each: what a text comes to.
      rate: trained tokens a second that were measured, or 0: by FLOP and the peak.
    """
    cfg = sized.cfg
    if rate:
        tokens = sum(p.trained(each) for p in phases)
        if isinstance(exp, Lmsi):
            tokens = _imitated(exp, phases)
        return Seconds(tokens / rate, None, f"the rate given, {rate:,.0f} tokens/s")
    own = jax.local_devices()[0]
    peak, name = backend.peak_flops(own), own.device_kind
    basis = "modelled"
    if peak is None:
        peak, name = backend.PEAK_FLOPS[MODELLED], MODELLED
        basis = (
            f"modelled for one {MODELLED}, as no peak is known of this device (give "
            "--rate=TOKENS_PER_S, which train prints for each pool)"
        )
    share = SHARES[set(cfg.targets) <= {"q_proj", "v_proj"}]
    per_token = throughput.flops_per_token(arch, cfg)
    count = sum(steps(p, each, cfg, exp.lines_per_step) for p in phases)
    if isinstance(exp, OverSeeds):
        tokens = sum(p.trained(each) for p in phases)
        count = math.ceil(tokens / cfg.plan.step_tokens)
    # Teachers read forward, which is half of a step over a frozen base.
    read = sum(p.taught for p in phases) / 2
    # A gradient without a step takes what a step does.
    read += sum(p.scored for p in phases)
    # The policy is fine-tuned by adapters of the same shape.
    read += _imitated(exp, phases) if isinstance(exp, Lmsi) else 0
    training = (count * cfg.plan.step_tokens + read) * per_token / (peak * share)
    basis += (
        f": {per_token / 1e9:.3g} GFLOP a token at {share:.0%} of the peak of "
        f"{peak / 1e12:,.0f} TFLOP/s, the share of the modelled 7B steps of "
        "docs/engine.md"
    )
    writing = None
    if name.startswith(MODELLED):
        writing = _writing(exp, sized.base, phases)
        basis += (
            "; writing and answers: reading the base once for every token of a full "
            f"batch at {BANDWIDTH / 1e12:.2f} TB/s, which is a floor"
        )
    return Seconds(training, writing, basis)


def row_tokens(exp: Lmsi) -> int:
    """Of a row that is learned from, at least: a chain as long as it may be."""
    step = exp.imitate.length_multiple
    return -(-exp.propose.max_tokens // step) * step


def _imitated(exp: Lmsi, phases: Sequence[Phase]) -> int:
    """Tokens of fine-tuning in all epochs, if all chains are kept."""
    return sum(p.imitated for p in phases) * exp.imitate.epochs * row_tokens(exp)


def _writing(exp: Experiment, base: int, phases: Sequence[Phase]) -> float:
    """Decoding's least time, texts as long as they may be; `base`: its bytes."""
    read = base / BANDWIDTH
    written = sum(p.written for p in phases) / exp.propose.batch
    answers = sum(p.answers for p in phases) / exp.answer.batch
    tokens = written * exp.propose.max_tokens + answers * exp.answer.max_tokens
    return tokens * read


def memory_lines(sized: Sized) -> list[str]:
    """Memory by part, for people."""
    found, memory = [], sized.memory
    if memory is None:
        found.append(f"base {formatting.size(sized.base)}")
        found.append("no adapters are packed: nothing else is counted")
    else:
        parts = {
            "base": memory.base,
            "slots": memory.slots,
            "finished adapters": memory.pool,
            "frozen stacks": memory.frozen,
            "teachers' bank": memory.bank,
            "saved slots": memory.saved,
        }
        found += [f"{k} {formatting.size(n)}" for k, n in parts.items() if n]
        found.append(
            f"temporaries {formatting.size(memory.other)}, by the compiled program"
            if sized.compiled
            else "temporaries: not counted, as the program was not compiled; train does"
        )
        least = "" if sized.compiled else "at least "
        found.append(f"the inner loop {least}{formatting.size(memory.total)}")
        after = capacity.answering(memory, sized.shards)
        found.append(f"answering, without its cache, {formatting.size(after)}")
    if sized.beside:
        found.append(
            f"beside either, weights that rounds start from or are merged into "
            f"{formatting.size(sized.beside)}"
        )
    found.append(f"{formatting.size(sized.limit)} can be used on {device()}")
    if sized.trouble:
        found.append(f"does not fit there: {sized.trouble}")
    return found
