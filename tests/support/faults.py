"""Starts runs that meet faults, goes on with them, and compares what they leave."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import socket
import subprocess
import sys

import faulty_run
import jax
import numpy as np
import orbax.checkpoint as ocp
import tiny_model

# As short as each kind of run can be.
SHORT = {
    "few_shot": {
        "scale.tasks": 1,
        "scale.edits": 2,
        "scale.heldout_tasks": 1,
        "scale.heldout_edits": 1,
        "propose.batch": 6,
        "data.most": 6,
        "edit.max_steps": 9,
        "inner.step_tokens": 768,
        "inner.slots": 4,
        "inner.active": 4,
        "inner.pool": 2,
        "views.reorders": 0,
        "views.geometric": ("flip0",),
        "answer.batch": 12,
        "imitate.epochs": 1,
        "select.threshold": "none",
        "ladder": ("self_edits",),
    },
    "continual": {
        "propose.max_tokens": 8,
        "answer.batch": 12,
        "arms": ("merge", "replay+gate"),
    },
    "deploy": {
        "stream.sessions": 1,
        "propose.max_tokens": 8,
        "answer.batch": 12,
        "arms": ("none", "edits+gate", "quiz+keep", "on_policy+dream+replay"),
    },
    "lmsi": {
        "scale.questions": 4,
        "scale.heldout": 2,
        "chains.samples": 3,
        "propose.batch": 12,
        "answer.batch": 12,
        "imitate.lora.rank": 2,
    },
}
ROUNDS = {"scale__rounds": 1, "ladder": ("base", "random_kept"), "inner__pool": 2}
FILES = ("edits.jsonl", "sessions.jsonl", "heldout.jsonl", "policy/model.safetensors")


def values(kind: str, model: pathlib.Path) -> dict:
    """A run of rounds on a random model, of few-shot tasks, sequences, streams, or
    questions without labels."""
    if kind == "rounds":
        return tiny_model.values(model, **ROUNDS)
    name, arg = ("arc", "tiny") if kind == "few_shot" else (kind, "debug")
    config = tiny_model.load_config(name, arg)
    config.update_from_flattened_dict(SHORT[kind])
    return config.to_dict()


@dataclasses.dataclass
class Runs:
    """Runs of one config: `folder` has the config, the counts and the programs."""

    folder: pathlib.Path
    env: dict[str, str]

    @property
    def log(self) -> pathlib.Path:
        return self.folder / "counts.jsonl"

    def command(self, workdir, fault="none", moment=0, *more):
        args = map(str, (self.folder / "config.json", workdir, fault, moment, self.log))
        return [sys.executable, "-m", "faulty_run", *args, *map(str, more)]

    def start(self, workdir, fault="none", moment=0, *more):
        return subprocess.Popen(
            self.command(workdir, fault, moment, *more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
        )

    def go(self, workdir, fault="none", moment=0) -> bool:
        """One start to its end, which must be the right one; whether it finished."""
        process = self.start(workdir, fault, moment)
        _, err = process.communicate(timeout=600)
        status = process.returncode
        if status == 0:  # It finished before that moment.
            return True
        assert status == faulty_run.STATUS[fault], (fault, moment, status, err)
        said = spoken(err)
        match fault:
            case "SIGKILL":
                assert said == [], err
            case "SIGTERM" | "SIGINT":
                assert said == ["stopped; the same command continues"], err
            case "full":
                assert len(said) == 1 and said[0].startswith("error: "), err
                assert "cannot be written (No space left on device)" in said[0]
            case "error":
                # A fault of the program, not of its user: with its traceback, unless
                # it came while a file was opened, of which a line tells.
                assert "RuntimeError: a fault" in said[-1], err
        return False

    def counts(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def spoken(err: str) -> list[str]:
    """Lines of standard error that are no progress."""
    return [
        line
        for line in err.splitlines()
        if line.startswith("error: ")
        or not any(word in line for word in (" took ", " left", "/s"))
    ]


def runs(kind: str, folder: pathlib.Path, model: pathlib.Path, env: dict) -> Runs:
    """Runs of a kind, whose programs are compiled once."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values(kind, model)))
    own = {k: v for k, v in env.items() if "_proxy" not in k.lower()} | {
        "PYTHONPATH": os.pathsep.join([env["PYTHONPATH"], str(tiny_model.ROOT)]),
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return Runs(folder, own)


def moments(count: int, most: int, seed: str) -> list[tuple[str, int]]:
    """Faults at moments of a run that has `most`, all kinds alike."""
    rng = random.Random(seed)
    kinds = ["SIGKILL", "SIGTERM", "SIGINT", "error", "full"]
    first = rng.randrange(len(kinds))
    return [
        (kinds[(first + i) % len(kinds)], rng.randint(1, most)) for i in range(count)
    ]


def left(workdir: pathlib.Path) -> dict[str, str]:
    """What a finished run leaves, but for its clocks: by file, hashes of contents."""
    # Arms of continual runs tell their seconds too.
    summary = json.loads(
        (workdir / "summary.json").read_text(),
        object_hook=lambda row: {k: v for k, v in row.items() if k != "seconds"},
    )
    summary |= {"compile": None}
    found = {"summary": json.dumps(summary, sort_keys=True)}
    for name in FILES:
        if (workdir / name).exists():
            found[name] = hashlib.sha256((workdir / name).read_bytes()).hexdigest()
    for path in sorted((workdir / "checkpoints").rglob("sha256.json")):
        # Their arrays; what is beside these has times.
        tree = ocp.PyTreeCheckpointer().restore(path.parent / "tree")
        leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
        digest = hashlib.sha256(b"".join(leaves)).hexdigest()
        found[str(path.parent.relative_to(workdir))] = digest
    return found


def keys(workdir: pathlib.Path) -> list[str]:
    lines = (workdir / "journal.jsonl").read_text().splitlines()
    return [json.loads(line)["key"] for line in lines]


def assert_same(workdir: pathlib.Path, undisturbed: pathlib.Path) -> None:
    """Equal to the unbroken run, nothing journaled twice, nothing unfinished there."""
    here, there = left(workdir), left(undisturbed)
    odd = {k: (here.get(k), there.get(k)) for k in here | there}
    odd = {k: pair for k, pair in odd.items() if pair[0] != pair[1]}
    assert odd == {}, odd
    assert len(keys(workdir)) == len(set(keys(workdir)))
    assert sorted(keys(workdir)) == sorted(keys(undisturbed))
    names = [path.name for path in workdir.rglob("*")]
    assert [n for n in names if n.endswith((".tmp", ".new", ".old", ".room"))] == []
    assert [n for n in names if "orbax-checkpoint-tmp" in n or n == ".trial"] == []
    assert (workdir / "report.html").exists()


@contextlib.contextmanager
def pair(runs: Runs, workdir: pathlib.Path, fault="none", moment=0, who=0):
    """Both processes of a run; the fault is for one of them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    started = [
        runs.start(
            workdir,
            *((fault, moment) if i == who else ("none", 0)),
            *(address, i),
        )
        for i in range(2)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()
