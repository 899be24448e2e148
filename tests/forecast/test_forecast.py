"""What `train --dry_run` tells, for every experiment config; nothing is written."""

import dataclasses
import subprocess
import sys

import deploy_runs
import pytest
import tiny_model

from seal_jax import train
from seal_jax.experiment import kinds
from seal_jax.forecast import machine, shapes, work
from seal_jax.generation import policies
from seal_jax.generation.settings import ModelSource
from seal_jax.runtime import config_file
from seal_jax.training import capacity, packed

CONFIGS = [
    ("squad", None),
    ("squad", "rules"),
    ("squad", "small"),
    ("squad_cpt", None),
    ("squad_cpt", "tiny"),
    ("arc", None),
    ("arc", "tiny"),
    ("arc", "debug"),
    ("continual", None),
    ("continual", "tiny"),
    ("continual", "debug"),
    ("deploy", None),
    ("deploy", "tiny"),
    ("deploy", "debug"),
    ("tiny", None),
    ("tiny", "rounds"),
    ("tiny", "rewards"),
    ("tiny", "rules"),
    ("tiny", "seeds"),
    ("tiny", "debug"),
]
PARTS = [
    "config (",
    "model ",
    "plan",
    "memory on one device",
    "programs to be compiled",
    "expected time",
    "nothing was downloaded, loaded or written",
]


def told(values, **changes):
    lines = []
    train.foretell(values, say=lines.append, **changes)
    return lines


def forbidden(*args, **kwargs):
    raise AssertionError("a dry run does not do that")


@pytest.fixture
def dry(monkeypatch, tmp_path):
    """Nothing is compiled, loaded or looked for on a network; the folder is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "COMPILED_ON_CPU", 0)
    monkeypatch.setattr(packed, "program", forbidden)
    monkeypatch.setattr(policies, "load", forbidden)
    monkeypatch.setattr("huggingface_hub.snapshot_download", forbidden)
    monkeypatch.setattr("seal_jax.tasks.hub.rows", forbidden)
    return tmp_path


@pytest.mark.parametrize(("name", "arg"), CONFIGS)
def test_every_config_is_told_and_nothing_is_written(dry, name, arg):
    config = tiny_model.load_config(name, arg)
    # Those of others are open, or given, as they are written.
    if arg == "debug":
        config.inner.update(step_tokens=0, slots=0, active=0, pool=0)
    values = config.to_dict()
    lines = told(values)
    places = [next(i for i, x in enumerate(lines) if x.startswith(p)) for p in PARTS]
    assert places == sorted(places)
    assert f"  seed={values['seed']}" in lines
    assert any(line.startswith("  scale.") for line in lines) == ("scale" in values)
    assert all("\n" not in line for line in lines)
    page = "\n".join(lines)
    assert "can be used on cpu: this machine has no accelerator" in page
    assert "modelled for one NVIDIA H200" in page
    assert "not known" not in page
    assert list(dry.iterdir()) == []


def lmsi(dry, **changes):
    config = tiny_model.load_config("lmsi")
    for side in ("train", "heldout"):
        (dry / f"{side}.jsonl").touch()
        config.task[side] = f"{side}.jsonl"
    config.update_from_flattened_dict(
        {key.replace("__", "."): value for key, value in changes.items()}
    )
    return config.to_dict()


def test_without_labels_fine_tuning_is_what_is_trained(dry):
    page = "\n".join(told(lmsi(dry)))
    assert "not known" not in page and "training the adapters" not in page
    assert "(rows of 512 tokens" in page and "not in it: compiling, the host" in page
    took = {}
    for epochs in (1, 2):
        exp = kinds.read(lmsi(dry, imitate__epochs=epochs))
        arch, each = shapes.of(exp.model).arch, work.text(exp)
        assert arch is not None
        phases, sized = work.phases(exp, each), machine.size(exp, arch, None)
        # Beside what is trained there is the base, with which every arm begins.
        assert sized.beside >= capacity.master_bytes(arch, None) + sized.base
        took[epochs] = machine.seconds(exp, arch, sized, phases, each, 0.0).training
        rate = machine.seconds(exp, arch, sized, phases, each, 1e6).training
        # Two rounds of 2,000 questions, 32 chains and four formats.
        assert rate == pytest.approx(2 * 2000 * 32 * 4 * 512 * epochs / 1e6)
    assert took[1] > 3600 and took[2] == pytest.approx(2 * took[1])


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"task__train": ""}, "task.train='' must name the questions"),
        ({"task__heldout": ""}, "task.heldout='' must name the questions"),
        ({"task__examples": "none.json"}, "task.examples='none.json': no such file"),
    ],
)
def test_questions_from_nowhere_are_told_before_a_run(dry, changes, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        told(lmsi(dry, **changes))
    if "task__heldout" in changes:
        assert told(lmsi(dry, scale__heldout=0, **changes))


def test_squad_in_numbers(dry):
    """Against figures that this project has published otherwise."""
    exp = kinds.read(tiny_model.load_config("squad").to_dict())
    each = work.text(exp)
    phases = {p.name: p for p in work.phases(exp, each)}
    first = phases["round_1"]
    assert (first.written, first.adapters, first.imitated) == (250, 750, 50)
    assert phases["row passage_only"].adapters == 200
    assert phases["row round_2"].written == 200
    assert phases["row in_context"].adapters == 0
    arch = shapes.of(exp.model).arch
    assert arch is not None
    # Qwen2.5-7B has 7.62 billion parameters, 6.53 of them not embeddings.
    assert capacity.base_bytes(arch) / 2 == pytest.approx(7.616e9, rel=1e-3)
    sized = machine.size(exp, arch, None)
    assert sized.cfg.plan.step_tokens == 4096 and sized.cfg.pool == 750
    # 4,096 tokens in 177.4 ms were modelled (docs/engine.md).
    step = dataclasses.replace(sized, cfg=dataclasses.replace(sized.cfg, pool=1))
    one = [work.Phase("one", adapters=1, lines=4096 / 520)]
    text = dataclasses.replace(each, tokens=52, epochs=10)
    took = machine.seconds(exp, arch, step, one, text, 0.0)
    steps = machine.steps(one[0], text, step.cfg, 1)
    assert took.training / steps == pytest.approx(0.1774, rel=0.02)


@pytest.mark.parametrize("name", shapes.KNOWN)
def test_known_shapes_have_their_models_parameters(name):
    source = ModelSource(name, False, "bfloat16", "auto", "auto")
    arch = shapes.of(source).arch
    assert arch is not None
    millions = {"Qwen2.5-7B": 7616, "1B-Instruct": 1236, "135M-Instruct": 134.5}
    wanted = next(n for end, n in millions.items() if name.endswith(end))
    assert capacity.base_bytes(arch) / 2e6 == pytest.approx(wanted, rel=1e-3)


def test_rates_rounds_and_models_that_nobody_knows(dry):
    values = tiny_model.load_config("tiny", "debug").to_dict()
    page = "\n".join(told(values, rate=10.0, more_rounds=1))
    assert "rests on: the rate given, 10 tokens/s" in page
    assert "row round_3" in page and "  scale.rounds=3" in page
    exp = kinds.read(values)
    each = work.text(exp)
    tokens = sum(
        p.adapters * p.lines * each.epochs * each.tokens for p in work.phases(exp, each)
    )
    arch = shapes.of(exp.model).arch
    assert arch is not None
    sized = machine.size(exp, arch, None)
    took = machine.seconds(exp, arch, sized, work.phases(exp, each), each, 10.0)
    assert took.training == pytest.approx(tokens / 10)
    values["model"]["path"] = "nobody/knows"
    page = "\n".join(told(values))
    assert "it is not on this machine and not a known one" in page
    assert "not counted: the model's shape is not known here" in page


def test_the_command_needs_no_workdir(tmp_path, child_env):
    config = f"--config={tiny_model.ROOT / 'configs' / 'squad.py'}:small"
    argv = [sys.executable, "-m", "seal_jax.train", config, "--config.seed=7"]
    done = subprocess.run(
        [*argv, "--dry_run", "--rate=5e3"],
        capture_output=True,
        text=True,
        env=child_env,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "  seed=7\n" in done.stdout and "the rate given, 5,000" in done.stdout
    assert list(tmp_path.iterdir()) == []
    for flag in ("--dry_run=false", "--dry_run=0", "--nodry_run"):
        with pytest.raises(ValueError, match="--workdir=FOLDER must"):
            config_file.check([*argv[2:4], flag])
    config_file.check([*argv[2:4], "--dry_run"])


def test_nights_count_what_teachers_read_and_what_mixtures_draw(dry):
    arms = ("quiz", "distill", "distill+dream", "mix", "edits", "distill_edits")
    config = tiny_model.load_config("deploy", "tiny")
    config.arms = (*arms, "on_policy", "on_policy+dream")
    exp = kinds.read(config.to_dict())
    each = work.text(exp)
    phases = {p.name.removeprefix("row "): p for p in work.phases(exp, each)}
    sessions = 8 * 5 * 3
    assert phases["quiz"].taught == phases["mix"].taught == phases["edits"].taught == 0
    read = each.passage + each.pair
    assert phases["distill"].taught == pytest.approx(sessions * 4 * read)
    assert phases["distill+dream"].taught == pytest.approx(sessions * (4 + 6) * read)
    assert phases["mix"].answers == phases["quiz"].answers + 2 * 4 * sessions
    assert phases["distill_edits"].taught > sessions * each.passage
    # Before each of five waves all questions are answered, and what is said is taught.
    practised = phases["on_policy"]
    assert practised.answers == phases["quiz"].answers + 5 * 4 * sessions
    assert practised.taught == pytest.approx(5 * phases["distill"].taught)
    assert practised.trained(each) == phases["distill"].trained(each)
    more = phases["on_policy+dream"]
    assert more.answers == phases["distill+dream"].answers + 5 * (4 + 6) * sessions
    assert more.taught == pytest.approx(5 * phases["distill+dream"].taught)
    assert any("teachers read" in line for line in told(config.to_dict()))


@pytest.mark.parametrize(
    ("rule", "imitated", "compared"),
    [
        ("best", 50, 0),
        ("positive", 250, 0),
        ("dpo", 100, 300),
        ("rloo", 250, 750),
    ],
)
def test_what_an_outer_rule_learns_from_is_counted(dry, rule, imitated, compared):
    """Of 50 passages of five edits, in two epochs."""
    config = tiny_model.load_config("squad")
    config.imitate.rule = rule
    exp = kinds.read(config.to_dict())
    phases = {p.name: p for p in work.phases(exp, work.text(exp))}
    first = phases["round_1"]
    assert (first.imitated, first.compared) == (imitated, compared)
    assert any("prefer.log_probs" in p for p in machine.programs(exp, [first])) == (
        compared > 0
    )
    config.imitate.data = "accumulate"
    exp = kinds.read(config.to_dict())
    phases = {p.name: p for p in work.phases(exp, work.text(exp))}
    assert phases["round_2"].imitated == 2 * imitated
    assert phases["round_2"].compared == 2 * compared


def test_of_logs_the_nights_are_counted_that_there_are(tmp_path):
    """Two streams of three days at most, one of which has a day without sessions."""
    rows = [
        deploy_runs.session("a", 1, "Ada Quill"),
        deploy_runs.session("a", 1, "Bo Quill"),
        deploy_runs.session("a", 3, "Cy Quill"),
        deploy_runs.session("b", 2, "Di Quill"),
    ]
    log = deploy_runs.write_log(tmp_path / "log.jsonl", rows)
    exp = deploy_runs.built(
        "embedded:tiny", stream__logs=str(log), stream__count=9, stream__days=7
    )
    each = work.Text(2.0, 10.0, 2.0, 1, "two lines")
    phases = {p.name.removeprefix("row "): p for p in work.phases(exp, each)}
    trained = [phase for name, phase in phases.items() if name in exp.learning_arms]
    assert trained and {phase.adapters for phase in trained} == {3}
    assert phases["the un-edited model"].answers == 2 * 2 * 4 + exp.stream.probes * 2
