"""Sizes that a caller need not know: of training, of decoding.

They are rounded, so that calls of about the same size run the same programs; what fits
the device is for `capacity` to say, and here for the memory that is left beside the
base. No size changes a result but by rounding.
"""

import dataclasses
import statistics
from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from seal_jax.api.settings import TrainSettings, WriteSettings
from seal_jax.generation.settings import Decoding
from seal_jax.models import decoder
from seal_jax.runtime import backend, meshes
from seal_jax.training import capacity, inner
from seal_jax.training.plan import Job
from seal_jax.training.settings import InnerSizes, LoraConfig

TILE = 8
NARROWEST_ROW = 64
# A pool of so many times the slots: its end, when slots run empty, is a small part, and
# finished adapters come out early.
POOL_PER_SLOT = 8
MOST_ROWS = 256
# Of the memory beside the base: for the cache and the adapters' pages, and for a stack.
_DECODING, _STACK = 0.5, 0.25
_PAGES = 2.5


def rounded(count: float) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: at most a third more."""
    power = 1
    while power < count:
        power *= 2
    return power * 3 // 4 if power >= 4 and count <= power * 3 // 4 else power


def training(
    arch: decoder.Arch,
    settings: TrainSettings,
    jobs: Sequence[Job],
    mesh: Mesh | None,
) -> inner.EngineConfig:
    """The inner loop for these jobs; compiles its program.

    Raises:
      ValueError: what is asked for does not fit the device; says what would.
    """
    shards = meshes.shards(mesh)
    count = -(-len(jobs) // shards)
    row = max(NARROWEST_ROW, rounded(max(max(job.positions()) for job in jobs)))
    line = statistics.fmean(
        -(-n // TILE) * TILE for job in jobs for n in job.positions()
    )
    step = line * statistics.fmean(min(settings.batch, len(job.lines)) for job in jobs)
    step_tokens = min(capacity.STEP_TOKENS, rounded(count * step))
    # Slots for a tenth to two thirds more adapters than fill a step.
    per_slot = max(TILE, rounded(0.6 * step))
    pool = POOL_PER_SLOT * max(1, step_tokens // per_slot)
    lora = LoraConfig(settings.targets, settings.rank, settings.scale_alpha)
    wanted = InnerSizes(
        lora=lora,
        clip=settings.clip,
        tile=TILE,
        row_tokens=row,
        chunk_tokens=0,
        step_tokens=0,
        slots=0,
        active=0,
        pool=settings.pool,
    )
    try:
        cfg, _ = capacity.choose(
            arch,
            wanted,
            limit=backend.memory_limit(jax.local_devices()[0]),
            adapters=shards * min(rounded(count), rounded(pool)),
            lines=settings.batch,
            mesh=mesh,
            step_tokens=step_tokens,
            positions=per_slot,
        )
    except ValueError as error:
        # There the settings are those of a config.
        said = str(error).replace("inner.lora.", "").replace("inner.", "")
        raise ValueError(said) from None
    return cfg


@dataclasses.dataclass(frozen=True)
class Decode:
    """`rows` decode together, `per_page` share an adapter; `stack` at a time."""

    rows: int
    per_page: int
    stack: int


def decoding(
    arch: decoder.Arch,
    mesh: Mesh | None,
    *,
    requests: int,
    most_of_one: int,
    positions: int,
    adapter_bytes: int,
) -> Decode:
    """How many rows, and how many adapters at a time.

    Args:
      arch: the decoder.
      mesh: its devices.
      requests: prompts in all.
      most_of_one: prompts of the adapter that has most of them.
      positions: of the longest prompt and its continuation.
      adapter_bytes: of one adapter; 0 without adapters.
    """
    limit = backend.memory_limit(jax.local_devices()[0])
    left = max(0, limit - capacity.base_bytes(arch, mesh))
    item = jax.numpy.dtype(arch.dtype).itemsize
    row_bytes = 2 * arch.layers * arch.kv_heads * arch.head_dim * positions * item
    per_page = min(most_of_one, 6)
    row_bytes += int(_PAGES * adapter_bytes / max(1, per_page))
    shards = meshes.shards(mesh)
    rows = shards * max(1, int(_DECODING * left) // row_bytes)
    stack = int(_STACK * left) // max(1, adapter_bytes)
    return Decode(
        min(MOST_ROWS * shards, rounded(requests), rows),
        max(1, per_page),
        max(1, stack),
    )


def decode_settings(chosen: WriteSettings, rows: int, longest: int) -> Decoding:
    """Settings of `policies`, prompts padded to the rounded length of the longest."""
    return Decoding(
        prompt="",
        temperature=chosen.temperature,
        top_p=chosen.top_p,
        top_k=chosen.top_k,
        min_tokens=0,
        max_tokens=chosen.max_tokens,
        prompt_multiple=rounded(max(8, longest)),
        batch=rows,
    )
