"""How fast adapters were trained: rates of one pool, as numbers and as a line."""

from typing import Any

import jax
from jax.sharding import Mesh

from seal_jax.models import decoder
from seal_jax.runtime import backend, formatting
from seal_jax.training import inner


def flops_per_token(arch: decoder.Arch, cfg: inner.EngineConfig) -> int:
    """FLOP to train one token: forward and backward, no gradient of what is frozen.

    Two per weight forwards and two backwards, of the base and of the stacks beneath
    the adapters, and six per weight of the adapter. With the divergence from the base,
    two more per weight of the base for its own forward pass, and four per weight of the
    head for more logits and a slope. With teachers, two more per weight of the head for
    what they predict; reading them is not counted, nor are attention and the overlap.
    """
    linears = arch.linears()
    per_rank = sum(sum(linears[t]) for t in cfg.targets) * arch.layers
    count = 4 * arch.matmul_params() + (6 * cfg.rank + 4 * cfg.frozen_rank) * per_rank
    if cfg.divergence:
        count += 2 * arch.matmul_params() + 4 * arch.width * arch.vocab
    if cfg.teach:
        count += 2 * arch.width * arch.vocab
    return count


def throughput(
    unit: dict[str, Any],
    adapters: int,
    *,
    arch: decoder.Arch,
    cfg: inner.EngineConfig,
    mesh: Mesh | None,
) -> dict[str, float]:
    """Rates of one pool: training alone, but `adapters_per_s` with its answers.

    MFU (Chowdhery et al. 2022, appendix B) is that of the tokens that carry loss, over
    the peak of all devices that trained; it is missing where the peak is not known.
    """
    seconds = unit["train_seconds"]
    rates = {
        "adapters_per_s": adapters / unit["seconds"],
        "tokens_per_s": unit["tokens"] / seconds,
        "steps_per_s": unit["steps"] / seconds,
        "token_efficiency": unit["tokens"] / unit["computed"],
    }
    peak = backend.peak_flops(jax.devices()[0])
    if peak is not None:
        flops = flops_per_token(arch, cfg) * rates["tokens_per_s"]
        devices = 1 if mesh is None else mesh.size
        rates["mfu"] = flops / (peak * devices)
    return rates


def line(rates: dict[str, float]) -> str:
    """A pool's rates for people, but for how many adapters it trains in a second."""
    digits = formatting.three_digits
    parts = [
        f"{digits(rates['tokens_per_s'])} tokens/s",
        f"{digits(rates['steps_per_s'])} steps/s",
        f"token efficiency {rates['token_efficiency']:.0%}",
    ]
    if "mfu" in rates:
        parts.append(f"MFU {rates['mfu']:.0%}")
    return ", ".join(parts)
