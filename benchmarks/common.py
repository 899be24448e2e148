"""What the benchmarks share: model shapes, timing, and what a result says of itself.

A result is one JSON object: the figures, and beside them the device, the versions, the
commit and the command. It is the last line that a benchmark prints, and with `--out` it
is also benchmarks/results/DEVICE/NAME.json.

Neither jax nor seal_jax is imported, and Python 3.11 is enough, so that the PyTorch
baseline can run under an interpreter of its own.
"""

import argparse
import ast
import dataclasses
import datetime
import functools
import importlib.metadata
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
JAX_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


# Model shapes

ARCHITECTURES = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a decoder; its weights are random wherever it is used."""

    vocab: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ff: int
    tied: bool
    family: str = "qwen2"

    def config(self) -> dict[str, Any]:
        """The same as the fields of a Hugging Face config.json, for jax and torch."""
        return {
            "architectures": [ARCHITECTURES[self.family]],
            "model_type": self.family,
            "vocab_size": self.vocab,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.ff,
            "max_position_embeddings": 32768,
            "rope_theta": 1e6,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": self.tied,
        }

    def linears(self) -> dict[str, tuple[int, int]]:
        """Input and output width of every projection of a layer."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.width, q),
            "k_proj": (self.width, kv),
            "v_proj": (self.width, kv),
            "o_proj": (q, self.width),
            "gate_proj": (self.width, self.ff),
            "up_proj": (self.width, self.ff),
            "down_proj": (self.ff, self.width),
        }

    def matmul_parameters(self) -> int:
        """Weights that every token is multiplied by: projections and output head."""
        per_layer = sum(d * f for d, f in self.linears().values())
        return self.layers * per_layer + self.vocab * self.width

    def lora_parameters(self, *, rank: int, targets: Sequence[str]) -> int:
        """Weights of one adapter."""
        linears = self.linears()
        return self.layers * rank * sum(sum(linears[name]) for name in targets)

    def training_flops(self, *, rank: int, targets: Sequence[str]) -> int:
        """Floating-point operations of training an adapter on one token.

        Forward and the activations' gradient through the frozen base, 2 each per
        weight; the adapter's three products. Attention scores are left out.
        """
        adapter = self.lora_parameters(rank=rank, targets=targets)
        return 4 * self.matmul_parameters() + 6 * adapter


# The named models are those of their config.json.
SHAPES: Mapping[str, Shape] = {
    "tiny": Shape(64, 32, 2, 2, 1, 16, 64, True),
    "small": Shape(2048, 256, 4, 4, 2, 64, 1024, True),
    "qwen2.5-0.5b": Shape(151936, 896, 24, 14, 2, 64, 4864, True),
    "qwen2.5-1.5b": Shape(151936, 1536, 28, 12, 2, 128, 8960, True),
    "qwen2.5-7b": Shape(152064, 3584, 28, 28, 4, 128, 18944, False),
    "llama-3.2-1b": Shape(128256, 2048, 16, 32, 8, 64, 8192, True, "llama"),
}


def shape(text: str) -> Shape:
    """The shape that a flag names: "small", or "small,layers=2,tied=0".

    Raises:
      ValueError: no such name, field or number.
    """
    name, *changes = text.split(",")
    if name not in SHAPES:
        raise ValueError(
            f"--shape={text}: {name!r} must be one of {', '.join(SHAPES)}; other sizes "
            "are given after it, as in small,layers=2"
        )
    fields = [field.name for field in dataclasses.fields(Shape)]
    fields.remove("family")
    made: dict[str, Any] = {}
    for change in changes:
        key, _, value = change.partition("=")
        smallest = 0 if key == "tied" else 1
        if key not in fields or not value.isdecimal() or int(value) < smallest:
            raise ValueError(
                f"--shape={text}: {change!r} must be FIELD=NUMBER with one of "
                f"{', '.join(fields)} and a positive number (tied: 0 or 1)"
            )
        made[key] = bool(int(value)) if key == "tied" else int(value)
    return dataclasses.replace(SHAPES[name], **made)


# Timing


def time_repeats(run: Callable[[], Any], *, repeats: int) -> list[float]:
    """Wall seconds of each of `repeats` calls; `run` waits for the device itself."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return seconds


def rates(seconds: Sequence[float], **counts: float | None) -> dict[str, Any]:
    """The median of repeats, and each count over it: `adapters=8` gives adapters_per_s.

    Args:
      seconds: one per repeat, of the same work.
      **counts: what one repeat did; None where there is none to divide.

    Raises:
      ValueError: no repeats, or one that took no time.
    """
    if not seconds or min(seconds) <= 0:
        raise ValueError(f"seconds={list(seconds)} must be one or more, all positive")
    median = statistics.median(seconds)
    per_s = {
        f"{name}_per_s": None if count is None else count / median
        for name, count in counts.items()
    }
    return {"seconds": median, "seconds_by_repeat": list(seconds), **per_s}


# Where a result comes from


def child_env() -> dict[str, str]:
    """Both source roots of this checkout, and no compilation cache of other runs."""
    roots = [str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, roots))}
    # A run keeps its programs for the next one unless it is told not to.
    env["JAX_ENABLE_COMPILATION_CACHE"] = "0"
    return env


@functools.cache
def jax_device() -> str:
    """What jax runs on, as a folder's name; asked once, in a child that ends."""
    code = "import jax; d = jax.devices()[0]; print(d.platform, d.device_kind, sep='|')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=child_env(),
    )
    platform, kind = done.stdout.strip().splitlines()[-1].split("|", 1)
    return device_name(platform, kind)


def device_name(platform: str, kind: str, *, cores: int | None = None) -> str:
    """`cpu-2` for two cores; `nvidia-h200` for an "NVIDIA H200", by jax and torch."""
    if platform == "cpu":
        return f"cpu-{cores or os.cpu_count() or 1}"
    return slug(kind, keep="")


def slug(text: str, *, keep: str = "._") -> str:
    """`text` in lower case, with a hyphen for all but letters, digits and `keep`."""
    return re.sub(rf"[^a-z0-9{re.escape(keep)}]+", "-", text.lower()).strip("-")


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Python and the packages that decide the numbers."""
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": sys.version.split()[0], **found}


def commit() -> str | None:
    """The commit, with "-dirty" where files differ from it; None outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def command() -> str:
    """This process's command line, as it is given from the repository's root."""
    script = Path(sys.argv[0]).absolute()
    name = script.relative_to(ROOT) if script.is_relative_to(ROOT) else sys.argv[0]
    return shlex.join(["python", str(name), *sys.argv[1:]])


def stamp(*, device: str, packages: Sequence[str] = JAX_PACKAGES) -> dict[str, Any]:
    """Command, commit, date, device and versions, as every result states them."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        "command": command(),
        "commit": commit(),
        "date": now.isoformat(timespec="seconds"),
        "device": device,
        "versions": versions(packages),
    }


# What a config is given


def assignments(given: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE of the flag --set, the values as Python would read them, else as text.

    Raises:
      ValueError: one without a key or a value.
    """
    made = {}
    for one in given:
        key, _, text = one.partition("=")
        if not key or not text:
            raise ValueError(f"--set {one}: must be KEY=VALUE; give both")
        try:
            made[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            made[key] = text
    return made


# Where a result goes


def add_out(parser: argparse.ArgumentParser) -> None:
    """The flag `--out [FILE]` of every benchmark."""
    parser.add_argument(
        "--out",
        nargs="?",
        const="",
        help="also write the JSON to this file (without one, to the file of that name "
        "in benchmarks/results/DEVICE)",
    )


def write(result: Mapping[str, Any], out: str | None, *, name: str) -> Path | None:
    """Writes the result where `--out` says; the path, None without the flag.

    Raises:
      ValueError: a number in it is not finite.
    """
    if out is None:
        return None
    path = Path(out) if out else RESULTS / result["device"] / f"{name}.json"
    text = json.dumps(result, indent=2, sort_keys=True, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def line(result: Mapping[str, Any]) -> str:
    """The result as the one line that a benchmark ends with.

    Raises:
      ValueError: a number in it is not finite.
    """
    return json.dumps(result, allow_nan=False)


def finish(
    run: Callable[[], Mapping[str, Any]],
    out: str | None,
    *,
    name: str,
    table: Callable[[Mapping[str, Any]], str] | None = None,
) -> int:
    """Runs a benchmark, prints and writes its result; returns the exit status.

    Args:
      run: makes the result; its ValueError or OSError is told in one line.
      out: as `write`.
      name: of the result's file.
      table: the result for people, printed before its line.
    """
    try:
        result = run()
        if table is not None:
            print(table(result))
        written = write(result, out, name=name)
        if written is not None:
            print(f"written: {written}")
        print(line(result))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
