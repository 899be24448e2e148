"""The steps of a pooled run one by one: who writes, what trains, what is kept."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import test_arms as test_pooled
import tiny_model

from seal_jax.generation import policies
from seal_jax.generation.settings import ModelSource
from seal_jax.pooled import arms as pooled
from seal_jax.pooled import steps as pooled_steps
from seal_jax.pooled import texts as pooled_texts
from seal_jax.rounds import proposals, trials
from seal_jax.runtime import checkpoint, prng
from seal_jax.tasks import squad
from seal_jax.training import finetune, packed


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny")


# Writing


def test_chunks_of_passages_are_written_about_one_by_one(
    model_path, tmp_path, monkeypatch
):
    monkeypatch.setattr(pooled_steps, "CHUNK", 2)
    started = test_pooled.start(model_path, tmp_path / "run")
    passages = started.train[0]
    edits = pooled_steps.self_edits(started.state, started.base, passages)
    assert [(e.item, e.edit) for e in edits] == [
        (p, e) for p in range(3) for e in range(2)
    ]
    task = started.state.task
    assert [e.prompt for e in edits] == [
        task.propose_prompt(passages[e.item]) for e in edits
    ]
    keys = ["pooled/0/propose", "pooled/1/propose"]
    assert started.state.journal.keys() == keys
    assert len({e.text for e in edits}) > 1
    # The first of a chunk is not drawn like that of another.
    again = test_pooled.start(model_path, tmp_path / "other")
    same = [passages[0], passages[1], passages[0]]
    twice = pooled_steps.self_edits(again.state, again.base, same)
    assert twice[:4] == edits[:4]
    assert [e.text for e in twice[4:]] != [e.text for e in twice[:2]]


def test_another_model_can_write(model_path, tmp_path, monkeypatch):
    other = tiny_model.write(tmp_path / "other", seed=7)
    writer = test_pooled.start(other, tmp_path / "own")
    expected = pooled_steps.self_edits(writer.state, writer.base, writer.train[0])
    started = test_pooled.start(model_path, tmp_path / "run", writer__path=str(other))
    edits = pooled_steps.self_edits(started.state, started.base, started.train[0])
    assert edits == expected
    base = test_pooled.start(model_path, tmp_path / "base")
    assert pooled_steps.self_edits(base.state, base.base, base.train[0]) != edits

    def refuse(*args, **kwargs):
        raise AssertionError("loaded again")

    # What is written already needs no writer.
    monkeypatch.setattr(policies, "load", refuse)
    same = pooled_steps.self_edits(started.state, started.base, started.train[0])
    assert same == edits


def test_a_writer_must_stay_as_it_was(model_path, tmp_path, monkeypatch):
    monkeypatch.setattr(pooled_steps, "CHUNK", 2)
    other = tiny_model.write(tmp_path / "other", seed=7)
    started = test_pooled.start(model_path, tmp_path / "run", writer__path=str(other))
    run, passages = started.state, started.train[0]
    # As if killed after the first of two chunks.
    pooled_steps.self_edits(run, started.base, passages[:2])
    tiny_model.write(other, seed=8)  # as large as before
    with pytest.raises(ValueError, match=r"writer\.path=.* its contents are not") as e:
        pooled_steps.self_edits(run, started.base, passages)
    assert "\n" not in str(e.value)
    tiny_model.write(other, seed=7)
    assert len(pooled_steps.self_edits(run, started.base, passages)) == 6


def test_a_file_of_self_edits_must_stay_as_it_was(model_path, tmp_path):
    path = tmp_path / "edits.json"
    started = test_pooled.start(model_path, tmp_path / "run")

    def write(first):
        rows = [
            {
                "title": p.title,
                "context": p.text,
                "questions": [dataclasses.asdict(q) for q in p.questions],
                "completions": [first, "second", f"unused, beside {first}"],
            }
            for p in started.train[0]
        ]
        path.write_text(json.dumps(rows))

    write("first")
    # Released files name a passage by its text.
    named = [
        dataclasses.replace(p, id=squad.passage_id(p.title, p.text))
        for p in started.train[0]
    ]
    pool = dataclasses.replace(started.exp.pool, edits_file=str(path))
    run = dataclasses.replace(
        started.state, exp=dataclasses.replace(started.exp, pool=pool)
    )
    edits = pooled_steps.self_edits(run, started.base, named)
    assert [e.text for e in edits] == ["first", "second"] * 3
    assert pooled_steps.self_edits(run, started.base, named) == edits
    write("other")
    with pytest.raises(ValueError, match=r"pool\.edits_file=.* its contents are") as e:
        pooled_steps.self_edits(run, started.base, named)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("", ModelSource("m", True, "float32", "xla", "auto")),
        ("w", ModelSource("w", False, "float32", "xla", "auto")),
    ],
)
def test_the_writer_is_the_model_or_another(path, source):
    exp = test_pooled.experiment("m", writer__path=path)
    model = ModelSource("m", True, "float32", "xla", "auto")
    exp = dataclasses.replace(exp, model=model)
    assert pooled_steps.writer_source(exp) == source


def test_a_writer_of_too_short_a_context_is_refused(model_path, tmp_path):
    other = tiny_model.write(tmp_path / "short")
    exp = test_pooled.experiment(
        model_path, writer__path=str(other), propose__max_tokens=200
    )
    task_exp = test_pooled.experiment(model_path)
    (passages,), _ = pooled.load(exp)
    blank = policies.describe(exp.model)
    roomy = dataclasses.replace(
        blank, arch=dataclasses.replace(blank.arch, max_position=512)
    )
    pooled.make(task_exp, roomy, passages, [])
    with pytest.raises(ValueError, match=r"writer.path=.* tokens, 56 fit; lower prop"):
        pooled.make(exp, roomy, passages, [])


# Adapters


def jobs_of(started):
    passages, task = started.train[0], started.state.task
    sets = []
    for arm in ("passage_only", "oracle"):
        edits = proposals.fixed_edits(started.state, passages, arm)
        sets.append(pooled_texts.texts(task, passages, edits, copies="once"))
    return [
        pooled_texts.job(task.exp, task, texts, seed)
        for texts in sets
        for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def trained(model_path, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("adapters")
    # A pool of 3: four adapters take two calls. Small steps, since this model's large
    # weights blow up the last bits, in which one order of sums differs from another.
    started = test_pooled.start(model_path, workdir, inner__learning_rate=1e-3)
    assert started.state.inner.pool == 3
    jobs = jobs_of(started)
    args = (started.state, started.base, jobs, [0, 1, 0, 1], workdir)
    return started, args, pooled_steps.train_adapters(*args)


def test_each_adapter_is_trained_as_if_alone(trained):
    _, (run, base, jobs, seeds, _), got = trained
    for job, seed, (adapter, outcome) in zip(jobs, seeds, got, strict=True):
        alone = packed.train(
            base.params,
            [job],
            prng.fold(run.key, [trials.ADAPT], [seed]),
            arch=base.arch,
            cfg=run.inner,
            eos=base.eos,
        )
        solo = jax.tree.map(lambda x: x[:1], alone.adapters)
        pairs = zip(jax.tree.leaves(adapter), jax.tree.leaves(solo), strict=True)
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=5e-5)
        assert outcome.loss == pytest.approx(float(alone.loss_A[0]), rel=1e-5)
        assert outcome.finite
    # Of one seed they begin alike, and then part.
    first = [np.asarray(a["layers_0"]["q_proj"]["b"]) for a, _ in got]
    gaps = [np.abs(first[i] - first[0]).max() for i in range(1, 4)]
    assert min(gaps) > 1e-3


def test_adapters_are_kept(trained, monkeypatch):
    _, args, got = trained
    monkeypatch.setattr(packed, "train", test_pooled.refuse)
    again = pooled_steps.train_adapters(*args)
    assert checkpoint.latest(args[-1] / "checkpoints" / "pooled") == 2
    for (a, fit), (b, fit_again) in zip(got, again, strict=True):
        assert fit == fit_again
        assert all(
            (x == y).all()
            for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        )


def test_a_kill_between_checkpoint_and_journal_costs_nothing(
    trained, tmp_path, monkeypatch
):
    _, (run, base, jobs, seeds, workdir), got = trained
    fresh = test_pooled.start(base.source, tmp_path / "run")
    monkeypatch.setattr(packed, "train", test_pooled.refuse)
    again = pooled_steps.train_adapters(fresh.state, base, jobs, seeds, workdir)
    assert [outcome for _, outcome in again] == [outcome for _, outcome in got]
    # The story is that of the training, its seconds too.
    for unit in ("pooled/train/1", "pooled/train/2"):
        assert fresh.state.journal.get(unit) == run.journal.get(unit)


# Full fine-tuning


def test_a_full_training_is_begun_again_until_it_has_answered(
    model_path, tmp_path, monkeypatch
):
    started = test_pooled.start(model_path, tmp_path / "run", pool__how="full")
    run, passages = started.state, started.train[0]
    job = jobs_of(started)[0]
    calls, real, asks = [], finetune.train, pooled_steps.answers

    def counted(*args, **kwargs):
        calls.append(1)
        return real(*args, **kwargs)

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    def tune():
        return pooled_steps.finetuned(
            run, started.base, job, passages, name="ladder/x/0", seed=0
        )

    monkeypatch.setattr(finetune, "train", counted)
    monkeypatch.setattr(pooled_steps, "answers", killed)
    with pytest.raises(KeyboardInterrupt):
        tune()
    assert "ladder/x/0/train" in run.journal
    monkeypatch.setattr(pooled_steps, "answers", asks)
    first = tune()
    assert len(calls) == 2 and first.answers is not None
    assert tune() == first and len(calls) == 2
    # The model itself is as it was: the weights that were trained were others.
    assert not any(x.is_deleted() for x in jax.tree.leaves(started.base.params))
