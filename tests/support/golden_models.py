"""The tiny models of tests/golden for tests, and a live look at them through torch.

torch is no dependency. A live test runs in a child process: under the interpreter that
SEAL_TORCH_PYTHON names, or under this one; it skips where that has no torch.
"""

import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from seal_jax.models import decoder, hf, key_ranges

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
NAMES = ("qwen2", "qwen25", "qwen3", "llama")
ADAPTED = ("qwen2", "llama")  # those with PEFT adapters beside them


# What golden/make_golden.py asked transformers for.
CONFIGS = {
    "qwen2": decoder.Arch(
        "qwen2", 264, 32, 2, 4, 2, 8, 64, 256, 1e6, qkv_bias=True, tied=True
    ),
    "qwen25": decoder.Arch(
        "qwen2", 264, 48, 3, 6, 2, 8, 80, 256, 1e6, norm_eps=1e-5, qkv_bias=True
    ),
    "qwen3": decoder.Arch(
        "qwen3", 264, 32, 2, 4, 2, 16, 72, 256, 1e6, qk_norm=True, tied=True
    ),
    "llama": decoder.Arch(
        *("llama", 264, 64, 2, 4, 1, 16, 96, 256, 1e4),
        rope_scaling=decoder.RopeScaling(8.0, 1.0, 4.0, 32),
    ),
}


@functools.cache
def load(name: str) -> tuple[decoder.Arch, dict]:
    path = GOLDEN / name / "model"
    cfg = hf.read_config(path, dtype="float32")
    return cfg, hf.load_params(path, cfg)


@functools.cache
def arrays(name: str) -> dict[str, np.ndarray]:
    """`golden/<name>.safetensors`, e.g. "qwen2/logits" or "qwen2/peft_all"."""
    return load_file(GOLDEN / f"{name}.safetensors")


def batch(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and which of them are text, of the golden logits."""
    found = arrays(f"{name}/logits")
    return found["tokens"], found["attention_mask"].astype(bool)


@functools.partial(jax.jit, static_argnums=0)
def forward(cfg, params, tokens_BT, is_key_BT, lora=None):
    """Logits, with positions from 0 and a causal mask over the key positions."""
    variables = {"params": params} | ({} if lora is None else {"lora": lora})
    positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
    net = decoder.Decoder(cfg)
    hidden_BTD, _ = net.apply(
        variables, tokens_BT, positions_BT, key_ranges.causal(is_key_BT)
    )
    return net.apply(variables, hidden_BTD, method="unembed")


def assert_same_trees(one, other) -> None:
    """Equal bit for bit, dtypes and structure included."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()


def assert_one_line(caught, *parts) -> None:
    """The error is one line that holds every part."""
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message, message


_LIVE = """
import json, sys
try:
    import numpy, peft, torch, transformers
except ImportError as error:
    print(error)
    sys.exit(77)
args = json.loads(sys.argv[1])
model = transformers.AutoModelForCausalLM.from_pretrained(
    args["model"], dtype=torch.float32
)
if args["adapter"]:
    model = peft.PeftModel.from_pretrained(model, args["adapter"])
batch = {k: torch.from_numpy(v).long() for k, v in numpy.load(args["batch"]).items()}
with torch.no_grad():
    numpy.save(args["out"], model.eval()(**batch).logits.numpy())
"""


def live_logits(tmp_path, directory, tokens, is_key, adapter=None) -> np.ndarray:
    """Logits of a saved model as transformers (and PEFT) compute them; may skip."""
    python = os.environ.get("SEAL_TORCH_PYTHON", sys.executable)
    batch_file, out = tmp_path / "batch.npz", tmp_path / "logits.npy"
    np.savez(batch_file, input_ids=tokens, attention_mask=is_key.astype(np.int32))
    args = {
        "model": str(directory),
        "adapter": str(adapter) if adapter else None,
        "batch": str(batch_file),
        "out": str(out),
    }
    done = subprocess.run(
        [python, "-c", _LIVE, json.dumps(args)],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    if done.returncode == 77:
        pytest.skip(
            f"{python}: {done.stdout.strip()}; set SEAL_TORCH_PYTHON to a Python with "
            "torch, transformers and peft"
        )
    assert done.returncode == 0, done.stderr
    return np.load(out)
