"""Rounds that write more than they train: scores, the journal, and what is written."""

import dataclasses
import functools
import json
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_model
from make_run import BLANK

from seal_jax import train
from seal_jax.experiment import checks, kinds
from seal_jax.generation import policies
from seal_jax.models import lora
from seal_jax.rounds import dreams, label_free, trials
from seal_jax.runtime import files, prng
from seal_jax.tasks import knowledge
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Question
from seal_jax.training import influence, inner, plan_arrays

SIEVE = ("gradient", 5, 1, 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny")


def quizzes(run, policy, items, *, phase, round_index):
    """What a model of random weights does not ask: of the passages' own words.

    These are other questions than the gold ones, and know nothing of their answers.
    """
    asked = []
    for item in items:
        words = item.text.split()
        parts = [words[at : at + 5] for at in (0, 5, 10)]
        own = [Question(" ".join(part[:4]), part[4]) for part in parts]
        asked.append(dataclasses.replace(item, questions=tuple(own)))
    return asked


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    monkeypatch.setattr(label_free, "quizzes", quizzes)


@pytest.fixture(scope="module")
def loaded(model):
    """The experiment, its checked values, and the base."""
    given = values(model)
    exp = kinds.read(given)
    checked = checks.check(exp, given)
    assert isinstance(checked.task, knowledge.Knowledge)
    base = policies.load(
        exp.model, checked.blank, seed=exp.seed, mesh=None, merges=True
    )
    return exp, checked, base


def values(model, **changes):
    base = {
        "scale__rounds": 1,
        "ladder": ("base",),
        "select__prefilter": SIEVE,
        "select__compare": ("gradient", "gradient_gold"),
        "propose__temperature": 1.0,
    }
    return tiny_model.values(model, **(base | changes))


@pytest.fixture(scope="module")
def workdir(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("dreams")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_free, "quizzes", quizzes)
        train.run(values(model), path)
    return path


def rows(path):
    return list(files.read_jsonl(path / "edits.jsonl"))


def by_item(path):
    items = {}
    for row in rows(path):
        items.setdefault(row["passage_id"], []).append(row)
    return list(items.values())


def test_all_that_was_written_is_in_the_file_with_its_score(workdir):
    for written in by_item(workdir):
        assert [row["edit"] for row in written] == [0, 1, 2, 3, 4]
        going = [row for row in written if not row["aside"]]
        valid = [row for row in written if not row["refused"]]
        assert len(going) == min(2, len(valid))
        scores = {row["edit"]: row["measured"].get("gradient") for row in written}
        best = max(valid, key=lambda row: scores[row["edit"]][0])
        assert best in going
        for row in written:
            tried = bool(row["answers"])
            assert (
                tried == (not row["aside"]) and (row["reward"] is None) == row["aside"]
            )
            assert not (row["aside"] and row["kept"])
            assert "grade" in row["measured"] or row["aside"]
    line = json.loads((workdir / "summary.json").read_text())["rounds"][0]
    assert line["written"] == 10 and line["trainings"] <= 4


def test_gold_answers_change_only_the_score_that_reads_them(loaded):
    """With them in each other's place, what the model asks itself says the same."""
    exp, checked, base = loaded
    items = checked.train[0]
    noised = []
    for item in items:
        moved = [*item.questions[1:], item.questions[0]]
        pairs = zip(item.questions, moved, strict=True)
        own = tuple(dataclasses.replace(q, answer=other.answer) for q, other in pairs)
        noised.append(dataclasses.replace(item, questions=own))
    edits = [
        Edit(p, e, "", text)
        for p, item in enumerate(items)
        for e, text in enumerate(item.text.split(". ")[:2])
    ]
    journal = types.SimpleNamespace(cached=lambda key, unit: unit())
    run = trials.Run(
        exp,
        capacity_of(exp),
        None,
        journal,  # pyright: ignore[reportArgumentType]
        None,  # pyright: ignore[reportArgumentType]
        checked.task,
        print,
    )

    def found(items, name):
        return dreams.scores(
            *(run, base, items, edits), name=name, phase="round_1", round_index=1
        )

    own, gold = (found(items, name) for name in ("gradient", "gradient_gold"))
    assert len(set(own)) == len(edits) and None not in own
    assert found(noised, "gradient") == own
    other = found(noised, "gradient_gold")
    assert all(a != b != c for a, b, c in zip(own, gold, other, strict=True))


def test_a_killed_run_goes_on_to_the_same_end(model, workdir, tmp_path, monkeypatch):
    """After scoring: nothing is scored again."""
    lines = (workdir / "journal.jsonl").read_text().splitlines(keepends=True)
    keys = [json.loads(line)["key"] for line in lines]
    end = keys.index("round_1/gradient")
    for name in ("config.json", "layout.json"):
        shutil.copy(workdir / name, tmp_path)
    (tmp_path / "journal.jsonl").write_text("".join(lines[: end + 1]))
    names, scored = [], dreams._measured

    def measured(*args):
        names.append(len(args[4]))
        return scored(*args)

    monkeypatch.setattr(dreams, "_measured", measured)
    train.run(values(model), tmp_path)
    # What is left to measure are the gold answers, of those that go on.
    assert names == [sum(not row["aside"] for row in rows(workdir))]
    assert rows(tmp_path) == rows(workdir)
    ends = [
        json.loads((path / "summary.json").read_text())["rounds"][0]["entropy"]
        for path in (tmp_path, workdir)
    ]
    assert ends[0] == ends[1] > 0


def test_random_ones_stay_the_same_whatever_the_filter(model, tmp_path):
    """By each edit's own numbers: and then nothing is scored."""
    found = []
    for kept, others in ((0, 2), (2, 0)):
        path = tmp_path / f"{kept}"
        train.run(
            values(
                model,
                select__prefilter=("random", 5, kept, others),
                select__compare=(),
            ),
            path,
        )
        found.append(
            [(row["passage_id"], row["edit"], row["aside"]) for row in rows(path)]
        )
        assert not any("gradient" in row["measured"] for row in rows(path))
    assert found[0] == found[1]
    assert sum(aside for *_, aside in found[0]) >= 6


def test_as_the_reward_it_needs_no_adapter(model, tmp_path):
    train.run(
        values(
            model,
            select__prefilter=(),
            select__compare=(),
            select__reward="gradient",
            scale__edits=3,
        ),
        tmp_path,
    )
    for written in by_item(tmp_path):
        assert not any(row["answers"] for row in written)
        scored = [row for row in written if row["reward"] is not None]
        kept = [row["edit"] for row in written if row["kept"]]
        assert kept == [max(scored, key=lambda row: row["reward"])["edit"]]
        assert all(row["reward"] == row["measured"]["gradient"][0] for row in scored)
        assert all("aside" not in row for row in written)


def test_a_score_is_the_product_of_two_gradients(loaded, workdir):
    """Of an edit as the task trains it, and of what its passage's model asks."""
    exp, checked, policy = loaded
    task, blank = checked.task, checked.blank
    items = quizzes(None, None, checked.train[0], phase="", round_index=1)
    arch, lora_cfg = blank.arch, exp.inner.lora
    cfg = inner.EngineConfig(
        lora_cfg.targets, lora_cfg.rank, lora_cfg.alpha, None, pool=1
    )  # pyright: ignore[reportArgumentType]
    key = prng.take(prng.fold(prng.root(exp.seed), [trials.DREAM], [1]), 0)
    fresh = lora.init(key, arch, targets=cfg.targets, rank=cfg.rank)

    @jax.jit
    def slope(row):
        def loss(b):
            joined = jax.tree.map(
                lambda ab, own: {"a": ab["a"], "b": own},
                fresh,
                b,
                is_leaf=lambda x: "a" in x,
            )
            delta = inner.applied(joined, cfg)
            return inner.batch_loss(policy.params, delta, row, arch)

        return jax.grad(loss)(lora.per_linear(fresh, lambda ab: ab["b"]))

    def total(job):
        job = dataclasses.replace(job, epochs=1, batch=1)
        laid = plan_arrays.rows(job, eos=policy.eos, multiple=96)
        made = [slope(jax.tree.map(lambda x: x[None], step[0])) for step in laid]
        return functools.reduce(lambda x, y: jax.tree.map(jnp.add, x, y), made)

    row = next(row for row in rows(workdir) if not row["refused"])
    item = next(item for item in items if item.id == row["passage_id"])
    edit = Edit(0, row["edit"], row["prompt"], row["text"])
    exam = task.exam(item)
    assert exam is not None and len(exam.lines) == len(item.questions)
    both = total(task.job(item, edit, (0,))), total(exam)
    pairs = zip(*map(jax.tree.leaves, both), strict=True)
    product = sum(float(jnp.vdot(x, y)) for x, y in pairs) / len(exam.lines)
    np.testing.assert_allclose(row["measured"]["gradient"][0], product, rtol=1e-3)


def test_an_item_that_nothing_is_asked_about_has_no_score(loaded, monkeypatch):
    exp, checked, _ = loaded
    items = checked.train[0]
    asked = [dataclasses.replace(items[0], questions=()), items[1]]
    told = []

    def measure(params, targets, texts, key, **_):
        told.append((len(targets), [text.target for text in texts]))
        return influence.Influences(np.arange(len(texts)) * 6.0, 0, 0)

    monkeypatch.setattr(influence, "measure", measure)
    edits = [Edit(p, e, "", "Ada cooks bread.") for p in (0, 1) for e in (0, 1)]
    run = trials.Run(exp, capacity_of(exp), None, None, None, checked.task, print)  # pyright: ignore[reportArgumentType]
    found = dreams._measured(run, BLANK, items, asked, edits, 1)
    assert told == [(1, [0, 0])]
    assert found["values"][:2] == [None, None]
    lines = len(items[1].questions)
    assert found["values"][2:] == [0.0, pytest.approx(6.0 / lines)]


def capacity_of(exp):
    from seal_jax.training import capacity

    return capacity.build(exp.inner, step_tokens=192, adapters=3)
