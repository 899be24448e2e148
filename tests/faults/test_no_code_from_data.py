"""Nothing that is read is run, and no name leads out of its folder."""

import ast
import json
import pickle
import subprocess
import sys

import pytest
import tiny_model

from seal_jax import train
from seal_jax.models import hf, hf_weights

SOURCES = sorted(
    path
    for folder in ("seal_jax", "kernels", "configs")
    for path in (tiny_model.ROOT / folder).rglob("*.py")
)
# Modules that make objects, or run code, of what they read.
UNSAFE = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal",
    "shelve", "torch", "yaml", "code", "codeop",
}  # fmt: skip
# The command table runs modules of the package; a config file is a program.
RUNS_CODE = {"seal_jax/__main__.py", "seal_jax/runtime/config_file.py"}


def test_the_code_unpickles_nothing_and_trusts_no_remote_code():
    assert len(SOURCES) > 150
    for path in SOURCES:
        name = str(path.relative_to(tiny_model.ROOT))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not unsafe(node, name in RUNS_CODE), f"{name}: {ast.unparse(node)}"


def unsafe(node, runs_code):
    match node:
        case ast.Import():
            return {a.name.partition(".")[0] for a in node.names} & UNSAFE
        case ast.ImportFrom(module=str(module)):
            return module.partition(".")[0] in UNSAFE
        case ast.Call(func=ast.Name(id=called)):
            return called in ("eval", "exec", "compile", "__import__")
        case ast.Call(func=ast.Attribute(value=ast.Name(id="os"), attr=called)):
            return called in ("system", "popen")
        case ast.Attribute(attr="exec_module" | "run_path" | "load_module"):
            return not runs_code
        case ast.keyword(arg="trust_remote_code" | "allow_pickle" | "shell"):
            return not (isinstance(node.value, ast.Constant) and not node.value.value)
    return False


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


# What a model directory may hold that would run, were it trusted.
def arm(folder, marker):
    code = f"open({str(marker)!r}, 'w')\n"
    auto = {
        "AutoConfig": "evil.Evil",
        "AutoModelForCausalLM": "evil.Evil",
        "AutoTokenizer": ["evil.Evil", "evil.Evil"],
    }
    for name in ("evil.py", "tokenization_evil.py", "__init__.py", "conftest.py"):
        (folder / name).write_text(code + "class Evil: pass\n")
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        values = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(values | {"auto_map": auto}))
    for name in ("pytorch_model.bin", "model.pt", "optimizer.pt", "training_args.bin"):
        (folder / name).write_bytes(pickle.dumps(Bomb(marker)))
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code)


AUDITED = """
import sys
seen = []
sys.addaudithook(lambda event, args: seen.append(args) if event == "pickle.find_class"
                 else None)
from seal_jax.models import hf, hf_weights
arch = hf.read_config(sys.argv[1], dtype="float32")
hf_weights.load_params(sys.argv[1], arch)
hf.load_tokenizer(sys.argv[1])
print("unpickled:", seen)
"""


def test_a_model_directory_runs_nothing(tmp_path, child_env):
    model, marker = tiny_model.write(tmp_path / "model"), tmp_path / "ran"
    arm(model, marker)
    done = subprocess.run(
        [sys.executable, "-c", AUDITED, str(model)],
        env=child_env,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert "unpickled: []" in done.stdout, done.stderr
    assert not marker.exists()


def test_weights_that_are_pickled_are_refused(tmp_path):
    model, marker = tiny_model.write(tmp_path / "model"), tmp_path / "ran"
    arm(model, marker)
    arch = hf.read_config(model, dtype="float32")
    for weights in model.glob("*.safetensors"):
        weights.unlink()
    with pytest.raises((ValueError, OSError), match="safetensors"):
        hf_weights.load_params(model, arch)
    (model / "model.safetensors").write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises((ValueError, OSError), match="safetensors"):
        hf_weights.load_params(model, arch)
    assert not marker.exists()


OUTSIDE = (
    "embedded:../../models", "embedded:/etc", "embedded:tiny/../../..", "embedded:",
    "embedded:..", "embedded:tiny/", "embedded:\x1b[2J", "../../../../etc",
    "a/../../b", "../b", "a/b/c/d", "https://127.0.0.1:9/model", "file:///etc", "~",
    "a b/c", "-/-", "org/..",
)  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_models_name_leads_to_no_other_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError)) as caught:
        train.run(tiny_model.values(name), tmp_path / "run")
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "https://127.0.0.1:9/data", "a/../../b", "~/x", "..", "-"],
)
def test_a_data_sets_name_leads_to_no_other_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = tiny_model.load_config("squad", "debug").to_dict()
    values["task"] |= {"train": name, "heldout": name}
    with pytest.raises((ValueError, OSError)) as caught:
        train.run(values, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
