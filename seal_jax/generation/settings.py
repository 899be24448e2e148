"""Settings of a model and of how it writes; no jax."""

import dataclasses
from typing import Annotated

from seal_jax.runtime import config_rules
from seal_jax.runtime.config_rules import Batch, Bound, Tokens

# "auto": through the template, if the tokenizer came with one.
AUTO, NONE = "auto", "none"
CHATS = (AUTO, NONE)
DTYPES = ("float32", "bfloat16")
BASE_DTYPES = ("same", "float8")


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """`path`: directory or hub name. `random_weights`: use only its config.

    `dtype`: of weights and activations. `base_dtype`: in which the frozen linears are
    multiplied, "same" as `dtype` or "float8" (`models.float8_base`).
    `kernel`: implementation of the low-rank matmul, one of
    `lora_matmul.api.IMPLEMENTATIONS`. `attention`: that of attention, one of
    `attention.api.IMPLEMENTATIONS`. `chat`: whether prompts and training lines go
    through the tokenizer's own chat template, one of `CHATS`.
    """

    path: str
    random_weights: bool
    dtype: str
    kernel: str
    attention: str
    base_dtype: str = BASE_DTYPES[0]
    chat: str = NONE

    def __post_init__(self):
        config_rules.one_of("model.dtype", self.dtype, DTYPES)
        config_rules.one_of("model.base_dtype", self.base_dtype, BASE_DTYPES)
        config_rules.one_of("model.chat", self.chat, CHATS)
        if self.base_dtype != BASE_DTYPES[0] and self.kernel.startswith("mosaic"):
            raise ValueError(
                f"model.base_dtype={self.base_dtype!r} is not what model.kernel="
                f"{self.kernel!r} multiplies; use model.kernel='auto', or "
                "model.base_dtype='same'"
            )


@dataclasses.dataclass(frozen=True)
class Decoding:
    """One prompt and how its continuation is drawn; `prompt` is a name or a file."""

    prompt: str
    # Logits are divided by it: next to 0 they would overflow.
    temperature: Annotated[float, Bound(0.0, 100.0, least=1e-3)]
    top_p: Annotated[float, Bound(1e-6, 1.0)]
    top_k: Annotated[int, Bound(0, 10_000_000)]
    min_tokens: Annotated[int, Bound(0, 2**20)]
    max_tokens: Tokens
    prompt_multiple: Annotated[int, Bound(1, 65_536)]
    batch: Batch

    def __post_init__(self):
        config_rules.check(self)
        if self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens={self.min_tokens} must be at most max_tokens="
                f"{self.max_tokens}; lower one or raise the other"
            )
