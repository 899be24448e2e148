"""The baseline's training loop: one LoRA adapter at a time in PyTorch with PEFT.

`peft_baseline.py` measures it and says what it does and leaves out. Importing this file
imports no torch, so that the work can be counted without one.
"""

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import common
import workload

MODES = ("unpadded", "padded")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is trained; the defaults are the reference's."""

    mode: str = "unpadded"
    epochs: int = workload.EPOCHS
    rank: int = 32
    alpha: float = 64.0
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    learning_rate: float = 1e-3
    clip: float = 1.0
    pad_to: int = 2048
    max_steps: int | None = None


def lay(ids: Sequence[int], settings: Settings) -> tuple[list[int], int]:
    """Input ids of one line, which are its labels too, and how many may be attended to.

    As in the reference, the pads after a line are end-of-text, targets, and no keys.
    """
    if settings.mode == "unpadded":
        return [*ids, workload.EOS], len(ids) + 1
    ids = ids[: settings.pad_to]
    return [*ids, *[workload.EOS] * (settings.pad_to - len(ids))], len(ids)


def order(lines: int, settings: Settings, *, seed: int) -> list[int]:
    """Which line each step trains: all of them in each epoch, shuffled anew."""
    draw = random.Random(seed)
    return [
        index
        for _ in range(settings.epochs)
        for index in draw.sample(range(lines), lines)
    ]


# With torch


def build(shape: common.Shape, settings: Settings, *, device: str) -> tuple[Any, Any]:
    """A decoder with random frozen weights and a LoRA in place, and the PEFT wrapper.

    The decoder is returned apart from its wrapper, whose own forward only costs time.
    """
    import peft
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.Qwen2Config.from_dict({**shape.config(), "use_cache": False})
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device(device):
        base = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
        wrapper = peft.get_peft_model(
            base,
            peft.LoraConfig(
                r=settings.rank,
                lora_alpha=settings.alpha,
                lora_dropout=0.0,
                target_modules=list(settings.targets),
                task_type=peft.TaskType.CAUSAL_LM,
            ),
        )
    wrapper.train()
    return wrapper.get_base_model(), wrapper


def rows_of(
    job: Sequence[int], vocab: int, settings: Settings, *, seed: int, device: str
) -> list[dict[str, Any]]:
    """The model's arguments for each line, on the device."""
    import torch

    rows = []
    for ids in workload.token_ids(job, vocab=vocab, seed=seed):
        laid, keys = lay(ids, settings)
        tokens_BT = torch.tensor([laid], device=device)
        row = {"input_ids": tokens_BT, "labels": tokens_BT}
        if settings.mode == "padded":
            row["attention_mask"] = torch.zeros_like(tokens_BT)
            row["attention_mask"][:, :keys] = 1
        rows.append(row)
    return rows


def reset(model: Any) -> list[Any]:
    """Draws the adapter anew, as PEFT draws a fresh one; its parameters."""
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.reset_lora_parameters("default", init_lora_weights=True)
    return [p for p in model.parameters() if p.requires_grad]


def train(
    model: Any,
    rows: Sequence[dict[str, Any]],
    indices: Sequence[int],
    settings: Settings,
    *,
    total: int,
    device: str,
) -> tuple[Any, Any]:
    """Trains one adapter from scratch; the losses of its first and last step.

    Args:
      model: the decoder of `build`.
      rows: from `rows_of`.
      indices: the row of each step.
      settings: hyper-parameters.
      total: steps after which the learning rate would be zero.
      device: "cuda" or "cpu".
    """
    import torch

    trainable = reset(model)
    optimizer = torch.optim.AdamW(
        trainable, lr=settings.learning_rate, weight_decay=0.0, fused=True
    )
    first = last = None
    for step, index in enumerate(indices):
        optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - step / total)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = model(**rows[index]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        last = loss.detach()
        first = last if step == 0 else first
    return first, last
