"""Hugging Face model directories: config, tokenizer, weights, read and written.

A directory that `save` writes is opened by transformers and vLLM; what they write is
opened here. `hf_config` knows the fields, `hf_weights` the tensors.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.errors

from seal_jax.models import hf_config, hf_weights
from seal_jax.models.decoder import Arch
from seal_jax.runtime import files, reading

load_params = hf_weights.load_params

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
_TOKENIZER_CORE = ("tokenizer.json", "vocab.json", "tokenizer.model")
_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_AGAIN = "download it again"
_DOWNLOADED = ["*.json", "*.safetensors", "*.model", "*.jinja", "merges.txt"]


# Finding


def resolve(name_or_path: str | Path) -> Path:
    """The local directory of a model: itself, or a snapshot of a hub repository.

    "embedded:NAME" is a model that ships with the package.

    Raises:
      FileNotFoundError: neither a directory nor a repository that can be had (the
        network and the hub's answer count).
      DiskFullError: no room for the download.
    """
    name = str(name_or_path)
    if name.startswith("embedded:"):
        return _embedded(name)
    fix = (
        "give a local model directory, or embedded:tiny (--config=tiny), which needs "
        "no network"
    )
    # Not Path.expanduser, which raises where there is no such user.
    folder = os.path.expanduser(name)
    if name and files.is_folder(folder):
        return Path(folder)
    if not files.is_hub_name(name, owner=False):
        raise FileNotFoundError(
            f"model={reading.shorten(name)!r}: must be an existing directory or a hub "
            f"name; {fix}"
        )
    try:
        with files.disk_errors(name):
            return Path(
                huggingface_hub.snapshot_download(
                    name,
                    allow_patterns=_DOWNLOADED,
                    ignore_patterns=["original/*", "onnx/*", "consolidated*"],
                )
            )
    except files.DiskFullError:
        raise
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FileNotFoundError(
            f"model={name!r}: no such directory, and the hub did not provide it "
            f"({reason}); {fix}"
        ) from None


def _embedded(name: str) -> Path:
    assets = Path(__file__).parents[1] / "embedded" / "assets"
    shipped = {p.parent.name: p.parent for p in assets.glob("*/config.json")}
    inside = shipped.get(name.removeprefix("embedded:"))
    # By its name among these, so that none leads out of the folder.
    if inside is None:
        raise FileNotFoundError(
            f"model={reading.shorten(name)!r}: must be one of {sorted(shipped)}, after "
            "embedded:; correct the name"
        )
    return inside


# Configuration


def read_config(path: str | Path, *, dtype: str) -> Arch:
    """The model a config.json describes, as transformers 4 or 5 writes it.

    Args:
      path: model directory.
      dtype: of the parameters as they are to be loaded, not as they were saved.

    Raises:
      FileNotFoundError: no config.json.
      ValueError: a field is missing, or asks for what the decoder does not do.
    """
    file = Path(path) / "config.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: absent; a model directory holds config.json beside its weights"
        )
    raw = files.read_json(file)
    if not isinstance(raw, dict):
        raise ValueError(f"{file}: must hold one JSON object; download it again")
    with reading.boundary(file, wrong="does not describe a model", fix=_AGAIN):
        try:
            return hf_config.parse(raw, dtype=dtype)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None


# Tokenizer


def load_tokenizer(path: str | Path) -> Any:
    """The transformers tokenizer of a model directory.

    Raises:
      FileNotFoundError: no tokenizer files.
      ValueError: transformers cannot open them.
    """
    path = Path(path)
    if not any((path / n).is_file() for n in _TOKENIZER_CORE):
        raise FileNotFoundError(
            f"{path}: no tokenizer (tokenizer.json, or vocab.json with merges.txt); "
            "copy the tokenizer files of the model into it"
        )
    # transformers advises to install torch when it is imported; here it never is.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    import transformers

    with _opening(path):
        # False: else transformers asks at the terminal whether to run a model's code.
        return transformers.AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of `text`, nothing added in front or behind.

    Raises:
      ValueError: it holds a lone surrogate, which UTF-8 does not have; or the tokenizer
        cannot say it, as one without a token for what is unknown to it.
    """
    if reading.surrogate(text) is not None:
        raise ValueError(
            f"text={reading.shorten(repr(text))} must be text without lone surrogates; "
            'take them out, as text.encode("utf-8", "replace").decode() does'
        )
    with _opening("model.path"):
        return tokenizer.encode(text, add_special_tokens=False)


def begin_ids(tokenizer: Any) -> tuple[int, ...]:
    """Ids that the tokenizer puts before every text by itself: Llama's begin of text.

    None for Qwen's. What it may put behind a text is not of interest here: training
    ends each text itself.
    """
    for probe in ("a", "1", "the", "\n"):
        bare = encode(tokenizer, probe)
        if bare:
            break
    else:
        return ()
    with _opening("model.path"):
        whole = tokenizer.encode(probe, add_special_tokens=True)
    starts = range(len(whole) - len(bare) + 1)
    first = next((i for i in starts if whole[i : i + len(bare)] == bare), 0)
    return tuple(whole[:first])


def decode(tokenizer: Any, ids: list[int]) -> str:
    """Text of token ids; special tokens and ids without a token are left out."""
    return tokenizer.decode(
        [int(i) for i in ids],
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )


def eos_id(tokenizer: Any, path: str | Path) -> tuple[int, ...]:
    """Ids that end a generation: generation_config, else config.json, else tokenizer.

    The tokenizer's own end token comes first where it is one of them: it is the one to
    train on.

    Raises:
      ValueError: none of the three names one, or one names what is no id.
    """
    stated: Any = None
    source = Path(path)
    for name in ("generation_config.json", "config.json"):
        file = Path(path) / name
        if stated is None and file.exists():
            raw = files.read_json(file)
            if not isinstance(raw, dict):
                raise ValueError(
                    f"{file}: must hold one JSON object; download it again"
                )
            stated, source = raw.get("eos_token_id"), file
    tokenizer_eos = tokenizer.eos_token_id
    if stated is None:
        stated, source = tokenizer_eos, Path(path)
    if stated is None:
        raise ValueError(
            f"{path}: no end token; set eos_token_id in its generation_config.json"
        )
    ids = stated if isinstance(stated, list) else [stated]
    if not ids or any(type(i) is not int or i < 0 for i in ids):
        raise ValueError(
            f"{source}: eos_token_id={stated!r:.60} must be a token's id, an integer "
            "from 0 on, or a list of some; correct it"
        )
    return tuple(dict.fromkeys([tokenizer_eos, *ids] if tokenizer_eos in ids else ids))


def check_ids(
    path: str | Path, tokenizer: Any, cfg: Arch, stop_ids: Sequence[int]
) -> None:
    """Refuses ids without a row in the model's tables, where jax reads another.

    A table may have more rows than there are tokens; many are padded.

    Raises:
      ValueError: an end token or a token of the tokenizer is beyond `vocab_size`.
    """
    for i in stop_ids:
        if not 0 <= i < cfg.vocab:
            raise ValueError(
                f"{path}: eos_token_id {i} must be below vocab_size={cfg.vocab} of its "
                "config.json; correct the id in its generation_config.json or "
                "config.json"
            )
    with _opening(path):
        tokens = {int(i): str(token) for token, i in tokenizer.get_vocab().items()}
        # What it puts around a text may have ids that no token of it has.
        tokens |= {int(i): "added" for i in tokenizer("").input_ids if i not in tokens}
    if not tokens:
        raise ValueError(
            f"{path}: its tokenizer has no tokens; copy the tokenizer files of the "
            "model again"
        )
    most = max(tokens)
    if most >= cfg.vocab or min(tokens) < 0:
        raise ValueError(
            f"{path}: token {tokens[most]!r:.40} of its tokenizer has the id {most}, "
            f"which must be below vocab_size={cfg.vocab} of its config.json; copy the "
            "tokenizer and the weights of one model"
        )


def _opening(path: str | Path) -> contextlib.AbstractContextManager[None]:
    return reading.boundary(
        path,
        wrong="its tokenizer does not open or reads no text",
        fix="copy config.json and the tokenizer files of the model again",
        foreign=True,
    )


# Writing


def save(
    path: str | Path,
    cfg: Arch,
    params: dict,
    *,
    source: str | Path | None = None,
) -> None:
    """Writes a model directory whole: readers find the old one or the new one.

    Args:
      path: the directory; an earlier model there is replaced.
      cfg: its config; config.json states the dtype of `cfg`.
      params: as `load_params` returns them.
      source: directory of the model this one came from; its tokenizer,
        generation_config.json and token ids are carried over.

    Raises:
      ValueError: `params` does not fit `cfg`, or `path` holds something else.
      DiskFullError: no room; an earlier model is untouched and nothing is left behind.
    """
    config = hf_config.to_json(cfg)
    with replacing(path, marker="config.json") as here:
        if source is not None:
            for name in (*TOKENIZER_FILES, "generation_config.json"):
                if (Path(source) / name).exists():
                    shutil.copyfile(Path(source) / name, here / name)
            file = Path(source) / "config.json"
            raw = files.read_json(file) if file.exists() else {}
            if isinstance(raw, dict):
                config |= {k: raw[k] for k in _TOKEN_IDS if raw.get(k) is not None}
        files.write_json(here / "config.json", config)
        hf_weights.save_params(here, cfg, params)


@contextlib.contextmanager
def replacing(path: str | Path, *, marker: str) -> Iterator[Path]:
    """A new directory to fill, which takes the place of `path` if the block succeeds.

    Raises:
      ValueError: `path` exists and is not empty, and holds no `marker`: it was not
        written by this program; or it is no path that a new directory can have.
      DiskFullError: no room; the new directory is gone, `path` is as it was.
    """
    plain = isinstance(path, str | Path) and "\0" not in str(path)
    if not plain or Path(path).name in ("", ".."):
        raise ValueError(
            f"path={reading.shorten(repr(path))} must be the path of a directory to "
            "write; give one, such as 'out'"
        )
    path = Path(path)
    with files.disk_errors(path):
        taken = path.exists() and not (path / marker).exists()
        taken = taken and (not path.is_dir() or any(path.iterdir()))
    if taken:
        raise ValueError(
            f"{path}: exists and holds no {marker}, so it is not replaced; choose "
            "another path"
        )
    # Fixed names: what a kill left behind is cleared here, not collected.
    new, old = (path.with_name(f".{path.name}.{s}") for s in ("new", "old"))
    if old.exists() and not path.exists():
        old.rename(path)  # killed between the two renames below
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    try:
        with files.disk_errors(path):
            new.mkdir(parents=True)
            yield new
            if path.exists():
                path.rename(old)
            new.rename(path)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
