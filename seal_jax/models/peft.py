"""LoRA adapters as PEFT writes them: adapter_model.safetensors + adapter_config.json.

PEFT keeps `lora_A` `[R, in]`, which is our `a`, and `lora_B` `[out, R]`, our `b`
transposed. The scale alpha / R is in neither: it is `lora_alpha` in the config here and
an argument of `lora.scaled` there.
"""

import contextlib
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from seal_jax.models import hf, hf_weights
from seal_jax.models.decoder import Arch, layer_name
from seal_jax.runtime import files, reading

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_AGAIN = "copy the adapter again"
_DTYPES = (*hf_weights.SOURCE_DTYPES, "F64")
_MOST_RANK, _MOST_ALPHA = 1 << 16, 1e9
_KEY = re.compile(
    r"base_model\.model\.model\.layers\.(\d{1,9})\.(self_attn|mlp)\.(\w+)\.lora_([AB])\.weight"
)
# Options that change what the tensors mean, with the values under which they do not.
_PLAIN: dict[str, tuple] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    # The rest of PEFT's initialisations change the base weights too.
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva", None),
    "use_dora": (False, None),
    "use_rslora": (False, None),
    "use_qalora": (False, None),
    "use_bdlora": (False, None),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "modules_to_save": ([], None),
    "layers_to_transform": ([], None),
    "layer_replication": ([], None),
    "trainable_token_indices": ([], {}, None),
    "target_parameters": ([], None),
    "alora_invocation_tokens": ([], None),
    "arrow_config": (None,),
    "kasa_config": (None,),
    "monteclora_config": (None,),
}


def save(
    path: str | Path, delta: dict, *, cfg: Arch, alpha: float, base_name: str
) -> None:
    """Writes one adapter as a PEFT directory; the old one stays until it is whole.

    Args:
      path: the directory; an earlier adapter there is replaced.
      delta: unscaled, one adapter as `lora` has it.
      cfg: of the base model.
      alpha: LoRA's alpha.
      base_name: hub name or path of the base, recorded for the reader.

    Raises:
      ValueError: `delta` does not fit the model, or `path` holds something else.
      DiskFullError: no room.
    """
    tensors: dict[str, np.ndarray] = {}
    rank = _check_delta(delta, cfg)
    for layer in range(cfg.layers):
        for target, ab in delta[layer_name(layer)].items():
            a_RD, b_RF = np.asarray(ab["a"]), np.asarray(ab["b"])
            stem = _stem(layer, target)
            tensors[f"{stem}.lora_A.weight"] = np.ascontiguousarray(a_RD)
            tensors[f"{stem}.lora_B.weight"] = np.ascontiguousarray(b_RF.T)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": 0.0,
        "target_modules": list(delta[layer_name(0)]),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
    }
    with hf.replacing(path, marker=CONFIG) as here:
        files.write_json(here / CONFIG, config)
        hf_weights.write_safetensors(here / WEIGHTS, tensors)


def load(path: str | Path, cfg: Arch) -> tuple[dict, float]:
    """Reads a PEFT directory as `(delta, alpha)`, float32, unscaled.

    Raises:
      FileNotFoundError: one of the two files is absent.
      ValueError: an option this project does not have, a target or tensor the model
        does not have, a tensor that is missing or of another shape.
    """
    path = Path(path)
    with reading.boundary(path, wrong="must be a PEFT adapter", fix=_AGAIN):
        return _load(path, cfg)


def _load(path: Path, cfg: Arch) -> tuple[dict, float]:
    config = _read_config(path)
    tensors = _read_tensors(path / WEIGHTS)
    targets: dict[str, None] = {}
    for key in tensors:
        match = _KEY.fullmatch(key)
        if (
            match is None
            or match[3] not in cfg.linears()
            or int(match[1]) >= cfg.layers
            or not key.startswith(_stem(int(match[1]), match[3]))
        ):
            raise ValueError(
                f"{path}: tensor {key} has no place in a {cfg.family} model of "
                f"{cfg.layers} layers (targets {list(cfg.linears())}); load the "
                "adapter on the model it was trained on"
            )
        targets[match[3]] = None
    _check_targets(path, config, targets)
    ordered = [name for name in cfg.linears() if name in targets]

    def take(layer: int, target: str, side: str) -> np.ndarray:
        d, f = cfg.linears()[target]
        shape = {"A": (config["r"], d), "B": (f, config["r"])}[side]
        key = f"{_stem(layer, target)}.lora_{side}.weight"
        return _take(path, tensors, key, shape)

    delta = {
        layer_name(i): {
            target: {
                "a": jnp.asarray(take(i, target, "A")),
                "b": jnp.asarray(take(i, target, "B").T),
            }
            for target in ordered
        }
        for i in range(cfg.layers)
    }
    return delta, float(config["lora_alpha"])


def _stem(layer: int, target: str) -> str:
    part = "self_attn" if target in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp"
    return f"base_model.model.model.layers.{layer}.{part}.{target}"


def _check_delta(delta: dict, cfg: Arch) -> int:
    """The rank, if every layer has its place and every leaf the model's shape."""
    linears, rank = cfg.linears(), 0
    names = [layer_name(i) for i in range(cfg.layers)]
    if sorted(delta) != sorted(names) or len({tuple(delta[n]) for n in names}) != 1:
        raise ValueError(
            f"delta: layers {sorted(delta)} must be {names}, each with the same "
            "targets; save one adapter under its own model's config"
        )
    if not delta[names[0]]:
        raise ValueError(f"delta has no target; give one of {list(linears)}")
    for name in names:
        for target, ab in delta[name].items():
            rank = rank or ab["a"].shape[0]
            d, f = linears.get(target, (0, 0))
            want = (rank, d), (rank, f)
            got = tuple(ab["a"].shape), tuple(ab["b"].shape)
            if got != want:
                raise ValueError(
                    f"delta[{name}][{target}]: a, b have shapes {got}, and the model "
                    f"implies {want}; save one adapter (lora.select) under its own "
                    "model's config"
                )
    return rank


def _read_config(path: Path) -> dict[str, Any]:
    if not (path / CONFIG).exists():
        raise FileNotFoundError(
            f"{path / CONFIG}: absent; a PEFT adapter is {CONFIG} with {WEIGHTS}"
        )
    config = files.read_json(path / CONFIG)
    if not isinstance(config, dict):
        raise ValueError(f"{path / CONFIG}: must hold one JSON object; copy it again")
    for key, plain in _PLAIN.items():
        value = config.get(key, plain[-1])
        # `==` alone would take 1 for true, and 0 for false.
        if not any(type(value) is type(p) and value == p for p in plain):
            raise ValueError(
                f"{path / CONFIG}: {key}={value!r:.60} is not supported, only "
                f"{plain[0]!r}; merge the adapter with PEFT (merge_and_unload) and "
                "load the model"
            )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or not 1 <= rank <= _MOST_RANK:
        raise ValueError(
            f"{path / CONFIG}: r={rank!r:.40} must be a whole number of 1 to "
            f"{_MOST_RANK}; copy the adapter again"
        )
    # A bool is an int to Python; nan lies in no range.
    is_number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if alpha is None or not is_number or not 0 < alpha < _MOST_ALPHA:
        raise ValueError(
            f"{path / CONFIG}: lora_alpha={alpha!r:.40} must be a positive number "
            f"below {_MOST_ALPHA:g}; copy the adapter again"
        )
    return config


def _read_tensors(file: Path) -> dict[str, np.ndarray]:
    if not file.exists():
        raise FileNotFoundError(
            f"{file}: absent; adapters are read from safetensors only: save it again "
            "with PEFT's safe_serialization=True"
        )
    tensors = {}
    with contextlib.ExitStack() as stack:
        for key, part in hf_weights.open_safetensors(file, stack).items():
            if part.get_dtype() not in _DTYPES:
                raise ValueError(
                    f"{file}: tensor {key} is {part.get_dtype()}, and must be one of "
                    f"{list(_DTYPES)}; use the unquantized adapter"
                )
            tensors[key] = part[:].astype(np.float32)
            if not np.isfinite(tensors[key]).all():
                raise ValueError(
                    f"{file}: tensor {key} holds numbers that are not finite; train "
                    "the adapter again or copy a whole one"
                )
    return tensors


def _check_targets(path: Path, config: dict[str, Any], given: dict[str, None]) -> None:
    stated = config.get("target_modules")
    if isinstance(stated, list):
        if not all(isinstance(name, str) for name in stated):
            raise ValueError(
                f"{path / CONFIG}: target_modules={stated!r:.60} must be a list of "
                "strings; copy the adapter again"
            )
        if twice := sorted({name for name in stated if stated.count(name) > 1}):
            raise ValueError(
                f"{path / CONFIG}: target_modules repeats {twice[0]!r:.40}; name each "
                "module once"
            )
    elif stated is not None and not isinstance(stated, str):
        raise ValueError(
            f"{path / CONFIG}: target_modules={stated!r:.60} must be a list of strings "
            "or one; copy the adapter again"
        )
    # A string is a pattern or "all-linear"; then the tensors say what was trained.
    named = (
        {str(name).split(".")[-1] for name in stated}
        if isinstance(stated, list)
        else set(given)
    )
    if not given or named != set(given):
        raise ValueError(
            f"{path}: target_modules={stated!r:.90} and the tensors are of "
            f"{sorted(given)}; both files must come from one adapter"
        )


def _take(path: Path, tensors: dict, key: str, shape: tuple[int, ...]) -> np.ndarray:
    if key not in tensors:
        raise ValueError(
            f"{path}: tensor {key} is missing; every layer must carry the adapter"
        )
    if tensors[key].shape != shape:
        raise ValueError(
            f"{path}: tensor {key} has shape {tensors[key].shape}, and r and the model "
            f"imply {shape}; load the adapter on the model it was trained on"
        )
    return tensors[key]
