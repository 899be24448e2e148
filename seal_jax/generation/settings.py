"""Settings of a model and of how it writes; no jax."""

import dataclasses

from seal_jax.runtime import config_rules


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """`path`: directory or hub name. `random_weights`: use only its config.

    `kernel`: implementation of the low-rank matmul, one of
    `lora_matmul.api.IMPLEMENTATIONS`.
    """

    path: str
    random_weights: bool
    dtype: str
    kernel: str

    def __post_init__(self):
        config_rules.one_of("model.dtype", self.dtype, ("float32", "bfloat16"))


@dataclasses.dataclass(frozen=True)
class Decoding:
    """One prompt and how its continuation is drawn; `prompt` is a name or a file."""

    prompt: str
    temperature: float
    top_p: float
    top_k: int
    min_tokens: int
    max_tokens: int
    prompt_multiple: int
    batch: int

    def __post_init__(self):
        config_rules.at_least("max_tokens", self.max_tokens, 1)
        config_rules.at_least("min_tokens", self.min_tokens, 0)
        config_rules.at_least("batch", self.batch, 1)
        config_rules.at_least("prompt_multiple", self.prompt_multiple, 1)
        config_rules.within("temperature", self.temperature, 0.0, 100.0)
        config_rules.within("top_p", self.top_p, 1e-6, 1.0)
        config_rules.at_least("top_k", self.top_k, 0)
