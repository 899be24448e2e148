"""The API on several devices, simulated in a child process, against one device."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

import seal_jax as seal

PROMPTS = ["Ada", "The mill is", "Boris", "Who bakes?", "Rye", "It is old. Ada"]

CHILD = """
import json, sys
import seal_jax as seal

folder, out, texts, prompts = sys.argv[1], sys.argv[2], *map(json.loads, sys.argv[3:])
model = seal.load(folder)
assert model.mesh.size == 2
texts = [tuple(t["pair"]) if isinstance(t, dict) else t for t in texts]
adapters = seal.train_adapters(
    model, texts, rank=4, learning_rate=0.02, epochs=3, progress=False
)
adapters.save_peft(out)
print(json.dumps([model.base.mark, model.generate(prompts, adapters, max_tokens=8)]))
"""


@pytest.mark.slow
def test_all_devices_train_and_write_what_one_does(
    model, folder, texts, adapters, tmp_path, child_env
):
    flat = [text for text in texts if not isinstance(text, list)]
    plain = [{"pair": t} if isinstance(t, tuple) else t for t in flat]
    given = [json.dumps(value) for value in (plain, PROMPTS[: len(flat)])]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, folder, tmp_path / "out", *given],
        capture_output=True,
        text=True,
        env=child_env | {"JAX_NUM_CPU_DEVICES": "2"},
    )
    assert done.returncode == 0, done.stderr
    mark, written = json.loads(done.stdout)
    assert mark == model.base.mark
    many = seal.load_peft(tmp_path / "out", model=model)
    same = adapters[[i for i, text in enumerate(texts) if not isinstance(text, list)]]
    pairs = zip(jax.tree.leaves(many.tree), jax.tree.leaves(same.tree), strict=True)
    assert max(float(np.abs(a - b).max()) for a, b in pairs) < 2e-4
    alone = [
        model.merge(one).generate(PROMPTS, max_tokens=8)[i]
        for i, one in enumerate(same)
    ]
    assert written == alone
    with pytest.raises(ValueError, match="mesh data=3"):
        seal.load(folder, data=3)
