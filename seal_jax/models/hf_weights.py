"""Weights of a Hugging Face directory, streamed into our tree and back.

A leaf of our tree is one tensor of theirs, with kernels `[in, out]` where torch keeps
`[out, in]`. Leaves are filled one at a time, straight from the mapped files
and only with the slices a device needs, so that the host never holds the model.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from jax.sharding import Sharding

from seal_jax.models.decoder import Arch, layer_name
from seal_jax.models.parameters import Leaf, flat, leaf_shapes, nested
from seal_jax.runtime import files, reading

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SOURCE_DTYPES = ("F32", "BF16", "F16")
MAX_SHARD_BYTES = 5_000_000_000


@dataclasses.dataclass(frozen=True)
class Rule:
    """Where a tensor lives: its name in the files, its path in our tree."""

    name: str
    path: Leaf
    transpose: bool = False


def _rules(cfg: Arch) -> list[Rule]:
    """The tensors of a model, those of a layer side by side."""
    rules = [
        Rule("model.embed_tokens.weight", ("embed",)),
        Rule("model.norm.weight", ("final_norm", "scale")),
        Rule("lm_head.weight", ("lm_head",), transpose=True),
    ]
    for index in range(cfg.layers):
        ours = layer_name(index)
        rules += [
            dataclasses.replace(
                rule, name=f"model.layers.{index}.{rule.name}", path=(ours, *rule.path)
            )
            for rule in _IN_A_LAYER
        ]
    return rules


def _in_a_layer() -> list[Rule]:
    rules = [
        Rule("input_layernorm.weight", ("input_norm", "scale")),
        Rule("post_attention_layernorm.weight", ("post_norm", "scale")),
        Rule("self_attn.q_norm.weight", ("q_norm", "scale")),
        Rule("self_attn.k_norm.weight", ("k_norm", "scale")),
    ]
    for part, names in (("self_attn", "qkvo"), ("mlp", ("gate", "up", "down"))):
        for name in (f"{short}_proj" for short in names):
            rules.append(Rule(f"{part}.{name}.weight", (name, "kernel"), True))
            rules.append(Rule(f"{part}.{name}.bias", (name, "bias")))
    return rules


_IN_A_LAYER = _in_a_layer()
_AGAIN = "download the weights again"
_SHARD = re.compile(r"[A-Za-z0-9_][\w.-]*\.safetensors", re.ASCII)
# Buffers that old exports saved beside the weights; they are computed, not learnt.
_IGNORED = re.compile(r".*\.rotary_emb\.inv_freq")


# Reading


def load_params(path: str | Path, cfg: Arch, *, sharding: Any = None) -> dict:
    """Reads the parameters of a model directory, in `cfg.dtype`.

    A tied model whose files hold `lm_head.weight` all the same is accepted if that
    tensor equals the embedding, which is when transformers ties the two; where they
    differ, transformers would run the untied head, and this raises.

    Args:
      path: directory with model.safetensors, or with shards and their index.
      cfg: what the directory's config.json says (`hf.read_config`).
      sharding: None for the default device, one Sharding for every leaf, or a tree of
        them in the shape of the parameters (`placement.param_shardings`).

    Returns:
      The tree `Decoder` expects.

    Raises:
      FileNotFoundError: no weights there, or a shard of the index is absent.
      ValueError: a tensor that is missing, surplus, misshapen, unmapped or of a dtype
        other than float32, bfloat16 and float16; a damaged file.
    """
    path, leaves = Path(path), leaf_shapes(cfg)
    one_for_all = dict.fromkeys(leaves, sharding)
    shardings = flat(sharding) if isinstance(sharding, dict) else one_for_all
    out = {}
    with contextlib.ExitStack() as stack:
        tensors = _open(path, stack)
        if cfg.tied and "lm_head.weight" in tensors:
            _check_tied(path, tensors)
        _check_names(path, cfg, tensors, leaves)
        for rule in _rules(cfg):
            if rule.path in leaves:
                part, leaf = tensors[rule.name], leaves[rule.path]
                _check_part(path, rule, part, leaf.shape)
                out[rule.path] = _place(rule, part, leaf, shardings[rule.path])
    return nested(out)


def _open(path: Path, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Every tensor of the directory as an unread slice, by name.

    With an index, a tensor is that of the shard which `weight_map` assigns: what other
    shards hold under its name, or without a place in the map, is not read.
    """
    if not (path / INDEX).exists():
        if not (path / SINGLE).is_file():
            raise FileNotFoundError(
                f"{path}: no {SINGLE} and no {INDEX}; weights are read from "
                "safetensors only: convert other formats with transformers' "
                "save_pretrained"
            )
        shards = {SINGLE: None}
    elif (path / SINGLE).exists():
        raise ValueError(
            f"{path}: must hold either {SINGLE} or {INDEX} with its shards, not both, "
            "which may be of two models; remove one of them"
        )
    else:
        shards = _shards_of(path / INDEX)
    tensors = {}
    for name, wanted in shards.items():
        here = open_safetensors(path / name, stack, listed=wanted is not None)
        missing = [key for key in wanted or () if key not in here]
        if missing:
            raise ValueError(
                f"{path / name}: must hold tensor {missing[0]}, which {INDEX} places "
                "there; download both again"
            )
        tensors |= here if wanted is None else {key: here[key] for key in wanted}
    return {k: v for k, v in tensors.items() if not _IGNORED.fullmatch(k)}


def _shards_of(file: Path) -> dict[str, list[str] | None]:
    """The tensors of each shard by its file's name, as an index assigns them."""
    index = files.read_json(file)
    placed = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(placed, dict) or not placed:
        raise ValueError(f"{file}: must hold a weight_map; copy it again")
    shards: dict[str, list[str] | None] = {}
    for tensor, name in placed.items():
        # A shard lies beside its index: a name that leads elsewhere is not followed.
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            raise ValueError(
                f"{file}: weight_map[{tensor[:60]!r}]={name!r:.60} must be the name of "
                "a .safetensors file beside it; copy it again"
            )
        kept = shards.setdefault(name, [])
        assert kept is not None
        kept.append(tensor)
    return shards


def open_safetensors(
    file: Path, stack: contextlib.ExitStack, *, listed: bool = False
) -> dict[str, Any]:
    """Every tensor of a file as an unread slice, by name; open until the stack ends.

    Args:
      listed: whether the index names the file, for the message where it is absent.

    Raises:
      FileNotFoundError: it is absent.
      ValueError: it is no whole safetensors file.
    """
    if not file.is_file():
        what = f"listed in {INDEX} and absent" if listed else "absent, or no file"
        raise FileNotFoundError(f"{file}: {what}; download it again")
    with reading.boundary(
        file,
        wrong="not a whole safetensors file",
        fix="download it again",
        foreign=True,
    ):
        opened = stack.enter_context(safetensors.safe_open(file, "np"))
        names = opened.keys()
        return {name: opened.get_slice(name) for name in names}


def _check_tied(path: Path, tensors: dict[str, Any]) -> None:
    """Drops the head if it repeats the embedding."""
    head, embed = (
        tensors.pop("lm_head.weight"),
        tensors.get("model.embed_tokens.weight"),
    )
    if embed is None:
        return  # missing, which is reported as such
    rows, block = head.get_shape()[0], 4096
    same = head.get_shape() == embed.get_shape() and all(
        np.array_equal(head[i : min(i + block, rows)], embed[i : min(i + block, rows)])
        for i in range(0, rows, block)
    )
    if not same:
        raise ValueError(
            f"{path}: lm_head.weight differs from the embedding while config.json says "
            "tie_word_embeddings=true; set it to false"
        )


def _check_names(path: Path, cfg: Arch, tensors, leaves) -> None:
    rules = _rules(cfg)
    in_a_layer = [re.escape(rule.name) for rule in _IN_A_LAYER]
    known = re.compile(rf"model\.layers\.\d+\.({'|'.join(in_a_layer)})")
    wanted = {rule.name: None for rule in rules if rule.path in leaves}
    names = {rule.name for rule in rules}
    unmapped, surplus = [], []
    for name in tensors:
        if name not in names and not known.fullmatch(name):
            unmapped.append(name)
        elif name not in wanted:
            surplus.append(name)
    missing = [name for name in wanted if name not in tensors]
    what = f"a {cfg.family} decoder of {cfg.layers} layers"
    for kind, names, rule in (
        ("unmapped", unmapped, f"{what} has no place for it; use a supported model"),
        ("surplus", surplus, f"{what} has none; config.json and weights must agree"),
        ("missing", missing, f"{what} needs it; {_missing_fix(missing)}"),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise ValueError(f"{path}: {kind} tensor {names[0]}{more}: {rule}")


def _missing_fix(missing: list[str]) -> str:
    if missing == ["lm_head.weight"]:
        return (
            "if its head is its embedding, set tie_word_embeddings=true in config.json "
            "(without the key a head of its own is meant); else download the weights "
            "again"
        )
    return _AGAIN


def _check_part(path: Path, rule: Rule, part: Any, shape: tuple[int, ...]) -> None:
    want = list(reversed(shape) if rule.transpose else shape)
    if part.get_shape() != want:
        raise ValueError(
            f"{path}: tensor {rule.name} has shape {part.get_shape()}, and config.json "
            f"implies {want}; the two must belong to the same model"
        )
    if part.get_dtype() not in SOURCE_DTYPES:
        raise ValueError(
            f"{path}: tensor {rule.name} is {part.get_dtype()}, and must be one of "
            f"{list(SOURCE_DTYPES)}; use the unquantized release of the model"
        )


def _place(rule: Rule, part: Any, leaf: Any, sharding: Sharding | None) -> jax.Array:
    """One leaf on its devices; equal shards are read once."""
    cache: dict[tuple, np.ndarray] = {}

    def read(index: Any) -> np.ndarray:
        bounds = tuple(s.indices(n)[:2] for s, n in zip(index, leaf.shape, strict=True))
        if bounds not in cache:
            cache[bounds] = _read(rule, part, bounds, leaf.dtype)
        return cache[bounds]

    if sharding is None:
        return jax.device_put(read((slice(None),) * len(leaf.shape)))
    return jax.make_array_from_callback(leaf.shape, sharding, read)


def _read(rule: Rule, part: Any, bounds: tuple, dtype: Any) -> np.ndarray:
    out = np.empty([stop - start for start, stop in bounds], dtype)
    region = tuple(slice(*pair) for pair in bounds)
    with reading.boundary(
        f"tensor {rule.name}", wrong="cannot be read", fix=_AGAIN, foreign=True
    ):
        if rule.transpose:
            out.T[...] = part[region[::-1]]
        else:
            out[...] = part[region]
    return out


# Writing


def save_params(
    path: Path,
    cfg: Arch,
    params: dict,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes the parameters into the directory `path`, in the dtype they have.

    One file, or from `max_shard_bytes` on several and an index. The host holds one
    leaf and one shard at a time.

    Raises:
      ValueError: `params` is not the tree of a model of this config.
      DiskFullError: no room.
    """
    ours, leaves = flat(params), leaf_shapes(cfg)
    given, wanted = ({p: tuple(x.shape) for p, x in t.items()} for t in (ours, leaves))
    if given != wanted:
        odd = min({p for p, _ in given.items() ^ wanted.items()})
        raise ValueError(
            f"params[{'/'.join(odd)}]: shape {given.get(odd)}, and the config implies "
            f"{wanted.get(odd)}; save a model under its own config"
        )
    groups = _shards(cfg, ours, max_shard_bytes)
    tensors = _tensors(cfg, ours)
    weight_map, total = {}, 0
    for number, names in enumerate(groups, start=1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        shard = {name: next(tensors) for name in names}
        weight_map |= dict.fromkeys(names, file)
        total += sum(x.nbytes for x in shard.values())
        write_safetensors(path / (SINGLE if len(groups) == 1 else file), shard)
    if len(groups) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        files.write_json(path / INDEX, index)


def _shards(cfg: Arch, flat: dict, limit: int) -> list[list[str]]:
    """The names of each file, in the order in which `_tensors` yields them."""
    groups, used = [[]], 0
    for rule in _rules(cfg):
        if rule.path in flat:
            size = flat[rule.path].nbytes
            if used + size > limit and groups[-1]:
                groups.append([])
                used = 0
            groups[-1].append(rule.name)
            used += size
    return groups


def _tensors(cfg: Arch, flat: dict) -> Iterator[np.ndarray]:
    for rule in _rules(cfg):
        if rule.path in flat:
            leaf = np.asarray(flat[rule.path])
            yield np.ascontiguousarray(leaf.T if rule.transpose else leaf)


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes one safetensors file that torch readers accept.

    Raises:
      DiskFullError: no room.
    """
    with files.disk_errors(path):
        try:
            safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})
        except safetensors.SafetensorError as error:
            # The library reports a failed write as text.
            code = re.search(r"os error (\d+)", str(error))
            if code is None:
                raise
            raise OSError(int(code[1]), str(error)) from None
