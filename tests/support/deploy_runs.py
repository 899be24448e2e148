"""Short runs on the job, on a very small model, as the shell does them."""

import json

import tiny_model

from seal_jax.continual import sequences
from seal_jax.continual.settings import Continual
from seal_jax.deploy import days, sessions
from seal_jax.deploy.settings import Deploy
from seal_jax.deploy.stint import Stint
from seal_jax.generation import policies
from seal_jax.rounds import grading, trials
from seal_jax.runtime import config_rules, metrics
from seal_jax.runtime.journal import Journal
from seal_jax.training import capacity

CHANGES = {
    "stream.count": 2,
    "stream.days": 2,
    "stream.sessions": 2,
    "stream.probes": 2,
    "propose.min_tokens": 1,
    "propose.max_tokens": 8,
    "propose.prompt_multiple": 112,
    "label_free.questions": 2,
    "label_free.quiz.max_tokens": 24,
    "inner.lora.targets": ("q_proj", "v_proj"),
    "inner.lora.rank": 2,
    "inner.learning_rate": 0.05,
    "inner.epochs": 1,
    "inner.row_tokens": 96,
    "inner.step_tokens": 192,
    "inner.slots": 3,
    "inner.active": 2,
    "inner.pool": 3,
    "answer.max_tokens": 3,
    "answer.prompt_multiple": 32,
    "answer.batch": 12,
    "retain.gate_budget": 0.0,
}


def config(model, **changes):
    """The short config; `stream__days=1` changes one key."""
    found = tiny_model.load_config("deploy", "debug")
    found.model.path = str(model)
    found.inner.teach.waves = CHANGES["inner.epochs"]
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    found.update_from_flattened_dict(CHANGES | dotted)
    return found


def built(model, **changes):
    """The experiment of `config`."""
    return config_rules.build(Deploy, config(model, **changes).to_dict())


class Run:
    """A run of an experiment's own `walk`, on one device.

    `journal`: its entries by key; `kind`: the module of the experiment, which loads,
    makes and walks.
    """

    def __init__(self, exp, kind, workdir):
        self.exp, self.workdir, self.said = exp, workdir, []
        train, self.probes = kind.load(exp)
        blank = policies.describe(exp.model)
        flat = [passage for own in train for passage in own]
        task = grading.connect(exp, kind.make(exp, blank, flat, self.probes), workdir)
        cfg, _ = capacity.choose(
            blank.arch,
            exp.inner,
            limit=2**40,
            adapters=max(1, exp.adapters),
            options=exp.engine,
        )
        self.base = policies.load(exp.model, blank, seed=exp.seed)
        workdir.mkdir(parents=True, exist_ok=True)
        with (
            Journal(workdir / "journal.jsonl") as journal,
            metrics.Metrics(workdir) as log,
        ):
            self.state = trials.Run(
                exp=exp,
                inner=cfg,
                mesh=None,
                journal=journal,
                metrics=log,
                task=task,
                say=self.said.append,
            )
            self.summary = kind.walk(self.state, self.base, train, self.probes, workdir)
            keys = journal.keys()
            self.journal = {key: journal.get(key) for key in keys}


def merged(model, workdir, **changes):
    """A run of `continual` of the same sizes, on as many passages as days."""
    found = tiny_model.load_config("continual", "debug")
    found.model.path = str(model)
    own = {k: v for k, v in CHANGES.items() if k.partition(".")[0] in found.to_dict()}
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    found.update_from_flattened_dict(own | dotted | {"arms": ("merge",)})
    exp = config_rules.build(Continual, found.to_dict())
    return Run(exp, sequences, workdir)


class Walked(Run):
    """A run on the job."""

    def __init__(self, model, workdir, **changes):
        exp = built(model, **changes)
        self.streams = sessions.load(exp)
        super().__init__(exp, days, workdir)

    def stint(self, arm):
        texts = [self.journal.get(f"deploy/{key}", []) for key in ("generic", "beside")]
        return Stint.of(self.state, self.base, arm, self.streams, self.probes, *texts)

    def unit(self, arm, night, name):
        return self.journal[f"deploy/{arm}/{night}/{name}"]

    def row(self, arm):
        return next(row for row in self.summary["arms"] if row["name"] == arm)

    def checkpoints(self, arm):
        return self.workdir / "checkpoints" / "deploy" / arm


def write_log(path, rows):
    """A file of sessions."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def session(stream, day, subject, **more):
    """One about two facts of a resident, in the first form that logs may have."""
    return {
        "stream": stream,
        "day": day,
        "title": "Karsk",
        "context": f"{subject} cooks rye bread. {subject} plays cello.",
        "turns": [
            {"q": f"What does {subject} cook?", "a": "rye bread"},
            {"q": f"What does {subject} play?", "a": "cello"},
        ],
        **more,
    }
