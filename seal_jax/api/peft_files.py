"""Adapters from PEFT directories, of this program or of others."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from seal_jax.api.adapters import INDEX, Adapter, Adapters, Base, stack
from seal_jax.api.models import Model, check_model
from seal_jax.models import hf, lora, peft
from seal_jax.runtime import files, reading
from seal_jax.runtime.config_rules import shown


def load_peft(
    dirs: str | Path | Sequence[str | Path], *, model: Model | None = None
) -> Adapters:
    """Reads adapters, in order.

    Args:
      dirs: PEFT directories, or folders of such directories; one or a list.
      model: the model they are for. None: the one whose name their files have; of that
        only its config is read.

    Returns:
      them as one stack, in the model's dtype, scales folded in.

    Raises:
      FileNotFoundError: a path without an adapter, or a base that cannot be found.
      ValueError: not LoRA as PEFT writes it, or not for this model, or of ranks or
        targets that differ.
    """
    given = [dirs] if isinstance(dirs, str | Path) else dirs
    if not isinstance(given, Sequence) or not given:
        raise ValueError(
            f"dirs={shown(dirs)} must be a path or a list of paths; give one or more"
        )
    if any(not isinstance(item, str | Path) or not str(item) for item in given):
        raise ValueError(
            f"dirs={shown(dirs)} must be paths, none of them empty; correct them"
        )
    if model is not None and not hasattr(model, "base"):  # All that is asked of it.
        check_model("load_peft", model)
    found = [path for item in given for path in _directories(Path(item))]
    base = _base_of(found[0]) if model is None else model.base
    return stack([_read(path, base) for path in found])


def _directories(path: Path) -> list[Path]:
    """The path, if it is an adapter, else those in it: by its index, or by name."""
    if files.is_file(path / peft.CONFIG):
        return [path]
    if not files.is_folder(path):
        raise FileNotFoundError(
            f"{path}: no such folder; give a PEFT directory, or a folder of some"
        )
    inside = sorted(p.parent for p in path.glob(f"*/{peft.CONFIG}"))
    if files.is_file(path / INDEX):
        inside = [path / name for name in _names(path / INDEX)]
    if not inside:
        raise FileNotFoundError(
            f"{path}: holds no {peft.CONFIG}, and no folder in it does; give a PEFT "
            "directory, or a folder of some"
        )
    return inside


def _names(index: Path) -> list[str]:
    match files.read_json(index):
        case {"adapters": [*names]} if all(
            isinstance(name, str) and name == Path(name).name for name in names
        ):
            return names
    raise ValueError(
        f'{index}: must hold {{"adapters": [NAME, ...]}}, folders beside it; delete '
        "it to read all that there are"
    )


def _base_of(path: Path) -> Base:
    config = files.read_json(path / peft.CONFIG)
    name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(name, str) or not name:
        raise ValueError(
            f"{path / peft.CONFIG}: base_model_name_or_path={shown(name)} must name "
            "the model; give load_peft(..., model=)"
        )
    try:
        folder = hf.resolve(name)
    except OSError as error:
        raise FileNotFoundError(
            f"{path}: its base cannot be found ({reading.reason(error)}); give "
            "load_peft(..., model=)"
        ) from None
    return Base(hf.read_config(folder, dtype="float32"), name, None)


def _read(path: Path, base: Base) -> Adapter:
    delta, alpha = peft.load(path, base.arch)
    rank = len(jax.tree.leaves(delta)[0])
    dtype = jax.numpy.dtype(base.arch.dtype)
    scaled = lora.scaled(jax.tree.map(np.asarray, delta), alpha / rank)
    tree = jax.tree.map(lambda leaf: np.asarray(leaf).astype(dtype), scaled)
    return Adapter(tree, base, float("nan"), True)
