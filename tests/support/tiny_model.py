"""A model and an experiment small enough to run whole in a second, once compiled.

The model reads words of the generated world. Its weights are random, but large, so that
what it writes depends on what it reads.
"""

import dataclasses
import hashlib
import importlib.util
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from seal_jax.embedded import pretraining
from seal_jax.embedded import settings as pretrain_settings
from seal_jax.models import decoder
from seal_jax.training.inner_rules import RULES

ROOT = pathlib.Path(__file__).parents[2]

# Every kind of arm; two rounds of two passages, two edits each.
CHANGES: dict[str, Any] = {
    "scale.rounds": 2,
    "scale.passages": 2,
    "scale.edits": 2,
    "scale.seeds": 1,
    "scale.heldout_passages": 2,
    "propose.min_tokens": 1,
    "propose.max_tokens": 12,
    "propose.prompt_multiple": 112,
    "propose.batch": 4,
    "inner.lora.targets": ("q_proj", "v_proj"),
    "inner.lora.rank": 2,
    "inner.learning_rate": 0.05,
    "inner.epochs": 1,
    "inner.row_tokens": 96,
    "inner.step_tokens": 192,
    "inner.slots": 3,
    "inner.active": 2,
    "inner.pool": 3,
    "answer.max_tokens": 3,
    "answer.prompt_multiple": 32,
    "answer.batch": 12,
    "imitate.lora.rank": 2,
    "imitate.epochs": 1,
    "imitate.batch": 2,
    "imitate.micro_batch": 1,
    "imitate.length_multiple": 128,
}

# Groups that configs/tiny.py leaves out where it does not use them.
OPTIONAL: dict[str, dict[str, Any]] = {
    "grade.judge": {
        "base_url": "http://localhost:8000/v1",
        "model": "judge",
        "concurrency": 16,
        "retries": 4,
        "timeout_s": 60.0,
        "api_key_env": "OPENAI_API_KEY",
        "temperature": 0.0,
        "backoff_s": 1.0,
    },
    "task.columns": {
        "text": "text",
        "title": "",
        "id": "",
        "question": "",
        "answer": "",
        "questions": "",
    },
    "inner.teach": {
        "rates": dict.fromkeys(RULES, 0.0),
        "passage_line": False,
        "divergence": "forward",
        "beta": 0.5,
        "skip": 0,
        "waves": 2,
        "temperature": 1.0,
        "mix": 0.5,
        "tokens": 0,
    },
    "imitate.prefer": {
        "rates": dict.fromkeys(("positive", "dpo", "ipo", "grpo", "rloo"), 0.0),
        "most": 5,
        "shrink": False,
        "margin": 0.0,
        "beta": 0.1,
        "nll": 0.1,
        "per_token": False,
        "clip": 0.2,
        "kl": 0.0,
        "std": True,
        "tilt": 0.0,
    },
    "label_free": {
        "rubric": "rules",
        "questions": 6,
        "quiz": {
            "prompt": "plain",
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": 0,
            "min_tokens": 0,
            "max_tokens": 96,
            "prompt_multiple": 64,
            "batch": 8,
        },
    },
}


def write(path: pathlib.Path, *, seed: int = 0, layers: int = 2) -> pathlib.Path:
    """A model directory: weights, config and the world's tokenizer."""
    tokenizer = pretraining.build_tokenizer(pretrain_settings.CORPORA["world"]())
    arch = decoder.Arch(
        "llama", len(tokenizer.get_vocab()), 16, layers, 2, 1, 8, 24, 256, tied=True
    )
    params = decoder.init_params(jax.random.key(seed), arch)
    params = jax.tree.map(lambda leaf: leaf * 12 if leaf.ndim > 1 else leaf, params)
    pretraining.export(path, arch, params, tokenizer)
    return path


def load_config(name: str, arg: str | None = None) -> ConfigDict:
    """`configs/NAME.py`'s config."""
    file = ROOT / "configs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"configs_{name}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg)


def values(path: pathlib.Path | str, **changes: Any) -> dict[str, Any]:
    """A whole experiment on the model at `path`; `inner__epochs=2` changes one key.

    It has the groups that it could leave out; see `OPTIONAL`.
    """
    config = load_config("tiny", "debug")
    config.model.path = str(path)
    config.grade.judge = ConfigDict(OPTIONAL["grade.judge"])
    config.inner.teach = ConfigDict(OPTIONAL["inner.teach"])
    config.imitate.prefer = ConfigDict(OPTIONAL["imitate.prefer"])
    config.label_free = ConfigDict(OPTIONAL["label_free"])
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict(CHANGES | dotted)
    return config.to_dict()


def present(exp: Any) -> dict[str, Any]:
    """An experiment as a config says it: without the groups that were left out."""

    def clean(tree: dict[str, Any]) -> dict[str, Any]:
        return {
            key: clean(value) if isinstance(value, dict) else value
            for key, value in tree.items()
            if value is not None
            or key not in ("judge", "label_free", "columns", "teach", "prefer")
        }

    return clean(dataclasses.asdict(exp))


def toss(items: Sequence[tuple[str, str, str]]) -> list[bool]:
    """A grader that a random model does not always fail: a coin by question and answer.

    It stands in for `grading.scorer(...)`, so that edits differ in what they earn.
    """
    return [hashlib.sha256("|".join(item).encode()).digest()[0] < 100 for item in items]
