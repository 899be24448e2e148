"""The decisions of a round: what is kept, what is learned once, what is reported."""

import functools
import itertools

import jax
import make_run as run_maker
import numpy as np
import pytest
import tiny_model

from seal_jax.generation import policies
from seal_jax.models import hf, lora
from seal_jax.rounds import (
    control,
    evaluate,
    learn,
    proposals,
    rest_em,
    select,
    summary,
)
from seal_jax.rounds.graded import Graded, Trial
from seal_jax.rounds.lessons import Lesson
from seal_jax.runtime import checkpoint
from seal_jax.tasks.base import Edit, Lines
from seal_jax.tasks.passage import Passage, Question
from seal_jax.training import imitate

PASSAGES = [
    Passage(f"p{i}", "Karsk", f"text {i}", (Question("a?", "A"),)) for i in range(3)
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def make_run(tmp_path, path):
    with run_maker.opened(tmp_path) as make:
        yield functools.partial(make, tiny_model.toss, blank=None, model=path)


def load(run):
    blank = policies.describe(run.exp.model)
    return policies.load(run.exp.model, blank, seed=0)


def graded(rewards):
    """Graded edits from `rewards[passage][edit]`; longer text for earlier edits."""
    edits = []
    for p, row in enumerate(rewards):
        for e, value in enumerate(row):
            edit = Edit(p, e, "prompt", "x" * (9 - e))
            edits.append(Graded(edit, (), (), (), value))
    return edits


def choose(run, passages, rewarded, baseline, round_index=1):
    texts = [passage.text for passage in passages[: len(baseline)]]
    return select.choose(
        rewarded,
        texts,
        baseline,
        rule=run.exp.select.rule,
        ties_seed=f"{run.exp.seed} {round_index}",
    )


def kept_edits(run, rewards, baseline, round_index=1):
    rewarded = graded(rewards)
    kept = choose(run, PASSAGES * 3, rewarded, baseline, round_index)
    return [(rewarded[i].edit.item, rewarded[i].edit.edit) for i in kept]


REWARDS = [[0.2, 0.6, 0.6], [0.0, 0.0, 0.0], [None, 0.4, 0.5]]


@pytest.mark.parametrize(
    ("changes", "baseline", "expected"),
    [
        # SEAL's rule: the best of each passage, the first of equals, no threshold.
        ({}, [1.0, 1.0, 1.0], [(0, 1), (1, 0), (2, 2)]),
        ({"select__ties": "shortest"}, [0.0] * 3, [(0, 2), (1, 2), (2, 2)]),
        (
            {"select__k_best": 2},
            [0.0] * 3,
            [(0, 1), (0, 2), (1, 0), (1, 1), (2, 2), (2, 1)],
        ),
        ({"select__threshold": "0.55"}, [0.0] * 3, [(0, 1)]),
        ({"select__threshold": "0.0"}, [1.0] * 3, [(0, 1), (1, 0), (2, 2)]),
        ({"select__threshold": "baseline"}, [0.5, 0.0, 0.5], [(0, 1)]),
        # Without a baseline nobody knows what beats it.
        ({"select__threshold": "baseline"}, [None, None, 0.1], [(2, 2)]),
    ],
)
def test_keep(make_run, changes, baseline, expected):
    assert kept_edits(make_run(**changes), REWARDS, baseline) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [0]),
        ({"select__novelty_bonus": 1.0}, [1]),
        ({"select__max_copied": 0.5}, [1]),
        ({"select__k_best": 3}, [0, 2, 1]),
        # The third repeats the first.
        ({"select__k_best": 3, "select__max_overlap": 0.5}, [0, 1]),
    ],
)
def test_what_is_new_can_count(make_run, changes, expected):
    passage = Passage("p", "Karsk", "rye bread is the dish of Ada", ())
    texts = ["rye bread is the dish", "Ada likes to cook rye bread", "rye bread is the"]
    rewarded = [
        Graded(Edit(0, e, "", text), (), (), (), value)
        for e, (text, value) in enumerate(zip(texts, [0.6, 0.4, 0.5], strict=True))
    ]
    run = make_run(scale__edits=3, **changes)
    assert choose(run, [passage], rewarded, [0.0]) == expected


def test_an_edit_without_judgements_is_never_kept(make_run):
    rewards = [[None, None], [None, -3.0]]
    assert kept_edits(make_run(), rewards, [0.0, 0.0]) == [(1, 1)]


def test_random_ties_depend_on_seed_round_and_passage_alone(make_run):
    level = [[0.5] * 6] * 8
    run = make_run(select__ties="random")
    first = kept_edits(run, level, [0.0] * 8)
    assert first == kept_edits(run, level, [0.0] * 8)
    assert len({edit for _, edit in first}) > 1
    assert first != kept_edits(run, level, [0.0] * 8, round_index=2)
    assert first != kept_edits(
        make_run(select__ties="random", seed=1), level, [0.0] * 8
    )


# Learning


EDITS = [
    Edit(i, 0, f"Passage:\nKarsk\n{name} plays cello.\n", "Karsk.")
    for i, name in enumerate(["Ada Quill", "Boris Fenn"])
]
LESSONS = [Lesson(edit) for edit in EDITS]


def learned_from(run, policy, tmp_path, *, round_index=1, name="policy", consume=False):
    return learn.finetuned(
        run, policy, LESSONS, round_index, tmp_path, name, consume=consume
    )


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_learning_is_done_once_and_merged_again_from_its_checkpoint(
    make_run, path, tmp_path, monkeypatch
):
    run = make_run()
    policy = load(run)
    learned = learned_from(run, policy, tmp_path)
    delta = lora.init(
        jax.random.key(0),
        policy.arch,
        targets=run.exp.imitate.lora.targets,
        rank=run.exp.imitate.lora.rank,
    )
    saved, meta = checkpoint.restore(tmp_path / "checkpoints" / "policy", 1, delta)
    assert_same(learned.params, jax.jit(lora.merge)(policy.params, saved))
    assert len(meta["losses"]) == 1
    assert run.journal.get("policy/imitate/1")["losses"] == meta["losses"]

    def never(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(imitate, "train", never)
    again = learned_from(make_run(), load(run), tmp_path)
    assert_same(again.params, learned.params)


def test_rounds_and_the_control_draw_different_adapters(make_run, tmp_path):
    run = make_run()
    policy = load(run)
    first = learned_from(run, policy, tmp_path)
    second = learned_from(run, policy, tmp_path, round_index=2)
    control = learned_from(run, policy, tmp_path, name="random_kept")
    layers = [p.params["layers_0"] for p in (policy, first, second, control)]
    q = [layer["q_proj"]["kernel"] for layer in layers]
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(q, 2))


def test_the_control_keeps_a_random_edit_of_each_passage(
    make_run, tmp_path, monkeypatch
):
    phases, kept = [], []

    def propose(run, writer, passages, *, phase, round_index, count):
        phases.append((phase, round_index))
        return [
            Edit(p, e, "", f"{p}{e}")
            for p in range(len(passages))
            for e in range(count)
        ]

    def record(run, policy, new, *, start, past, round_index, workdir, name):
        assert name == "random_kept" and len(past) == round_index - 1
        kept.append([(one.edit.item, one.edit.edit) for one in new])
        return policy

    monkeypatch.setattr(proposals, "propose", propose)
    monkeypatch.setattr(learn, "imitate", record)
    run = make_run(scale__edits=7)
    control.random_kept(run, None, [PASSAGES, PASSAGES, PASSAGES], tmp_path)
    # The first round's proposals are those of the first real round, not drawn anew.
    assert phases == [("round_1", 1), ("control/round_2", 2), ("control/round_3", 3)]
    assert [[p for p, _ in row] for row in kept] == [[0, 1, 2]] * 3
    assert len({edit for row in kept for _, edit in row}) > 2
    again = list(kept)
    kept.clear()
    control.random_kept(run, None, [PASSAGES, PASSAGES, PASSAGES], tmp_path)
    assert kept == again


# Reporting and saving


def test_a_round_in_numbers():
    rewarded = graded([[0.2, 0.6], [None, 0.0], [None, None]])
    line = summary.scores_line(rewarded, [1, 3], [0.5, None, 0.0], 2)
    assert line["round"] == 2
    assert line["baseline_mean"] == 0.25
    assert line["sampled_mean"] == pytest.approx(0.8 / 3)
    assert line["best_mean"] == pytest.approx(0.3)
    assert line["kept_mean"] == pytest.approx(0.3)
    assert line["kept"] == 2
    assert line["empty_rate"] is None


def test_a_round_counts_failures_gaps_and_empty_answers():
    edit = Edit(0, 0, "", "")
    good = Trial(0, 0, ("x", ""), (), (), 1.0, None)
    bad = Trial(0, 1, (), (), (), 1.0, "broke")
    rewarded = Graded(edit, (good, bad), ((None, 1.0), (0.0, 0.0)), (1.0, 0.0), 0.5)
    line = summary.scores_line([rewarded], [0], [0.0], 1)
    assert line["failed_adapters"] == 1
    assert line["missing_judgements"] == 1
    assert line["empty_rate"] == 0.5


def test_a_policy_is_saved_once_a_round(make_run, tmp_path):
    run = make_run()
    policy = load(run)
    learn.save_policy(run, policy, tmp_path, round_index=1)
    opened = hf.load_params(tmp_path / "policy", policy.arch)
    assert_same(opened, policy.params)
    (tmp_path / "policy" / "config.json").unlink()
    learn.save_policy(run, policy, tmp_path, round_index=1)
    assert not (tmp_path / "policy" / "config.json").exists()


def test_entropy_is_of_all_tokens_that_the_policy_wrote(make_run, monkeypatch):
    run, asked = make_run(), []

    def surprise(writer, written, decoding):
        asked.append(written)
        assert writer == "writer" and decoding == run.task.writing
        return [policies.Surprise(3.0, 1), policies.Surprise(2.0, 4)]

    monkeypatch.setattr(policies, "surprise", surprise)
    edits = [
        Edit(0, 0, "prompt", "short"),
        Edit(0, 1, "", "of nobody", fixed=True),
        Edit(1, 0, "other", "", refused="empty"),
    ]
    found = [proposals.entropy(run, "writer", edits, phase="r") for _ in range(2)]
    assert found == [1.0, 1.0]  # Finished work is kept.
    assert asked == [[("prompt", "short"), ("other", "")]]
    assert proposals.entropy(run, "writer", edits[1:2], phase="s") is None


@pytest.mark.parametrize("start", ["previous", "base"])
@pytest.mark.parametrize(
    ("data", "learned"), [("replace", ["new"]), ("accumulate", ["old", "new"])]
)
def test_a_round_learns_where_and_what_it_is_told(
    make_run, monkeypatch, tmp_path, start, data, learned
):
    run = make_run(imitate__start=start, imitate__data=data)
    policy, base, following = (
        policies.Policy(None, {}, None, (i,), tmp_path) for i in range(3)
    )
    edit = Edit(0, 0, "prompt", "new")
    good = Graded(edit, (), (), (1.0,), 1.0, {"grade": (1.0,)})
    seen = {}

    def finetuned(run, begin, lessons, round_index, workdir, name, *, consume):
        texts = [lesson.edit.text for lesson in lessons]
        seen.update(begin=begin, kept=texts, name=name, consume=consume)
        return following

    monkeypatch.setattr(proposals, "propose", lambda *a, **k: [edit])
    monkeypatch.setattr(evaluate, "evaluate", lambda *a, **k: ([good], [0.0]))
    monkeypatch.setattr(learn, "finetuned", finetuned)
    monkeypatch.setattr(proposals, "entropy", lambda *a, **k: 1.5)
    done = rest_em.one_round(
        run,
        policy,
        PASSAGES[:1],
        start=base if start == "base" else None,
        past=[[Lesson(Edit(0, 0, "prompt", "old"))]],
        round_index=2,
        workdir=tmp_path,
    )
    begin = base if start == "base" else policy
    # What the rounds start from again stays as it is.
    consume = start == "previous"
    assert seen == {
        "begin": begin,
        "kept": learned,
        "name": "policy",
        "consume": consume,
    }
    assert done.policy is following and done.kept == [0]
    assert done.lessons == [Lesson(edit)]
    line = summary.round_line(run, PASSAGES[:1], done, 2, [Lines(3, 1)])
    assert line["kept"] == 1 and line["novelty"]["words"] == 1
    assert (line["lines"], line["cut"]) == (3, 1)
    assert line["entropy"] == 1.5
    assert line["diversity"]["distinct_edits"] == 1
    told = summary.metrics_of(line)
    assert told["round/entropy"] == 1.5
    assert told["diversity/distinct_edits"] == 1
    assert "diversity/overlap_within" not in told  # There is one edit.


# Whose weights are whose


def is_deleted(policy):
    return {leaf.is_deleted() for leaf in jax.tree.leaves(policy.params)}


def imitated(run, policy, tmp_path, round_index=1, *, start=None, kept=LESSONS):
    return learn.imitate(
        run,
        policy,
        kept,
        start=start,
        past=[],
        round_index=round_index,
        workdir=tmp_path,
    )


def test_a_round_takes_over_the_weights_of_its_policy(make_run, tmp_path):
    run = make_run()
    policy, apart = load(run), load(run)
    following = imitated(run, policy, tmp_path)
    assert is_deleted(policy) == {True} and is_deleted(following) == {False}
    # The checkpoint is merged again, into weights that are kept.
    again = learned_from(run, apart, tmp_path)
    assert is_deleted(apart) == {False}
    assert_same(following.params, again.params)


def test_where_nothing_is_kept_the_policy_stays(make_run, tmp_path):
    run = make_run()
    policy = load(run)
    for start in (None, load(run)):
        assert imitated(run, policy, tmp_path, start=start, kept=[]) is policy
        assert is_deleted(policy) == {False}


def test_what_all_rounds_start_from_is_never_consumed(make_run, tmp_path):
    run = make_run(imitate__start="base")
    base = load(run)
    first = imitated(run, base, tmp_path, start=base)
    assert is_deleted(base) == {False} == is_deleted(first)
    second = imitated(run, first, tmp_path, 2, start=base)
    # The policy in between is given back: there is no room for three.
    assert is_deleted(first) == {True}
    assert is_deleted(base) == {False} == is_deleted(second)


@pytest.mark.parametrize("start", ["previous", "base"])
def test_the_control_leaves_the_base_as_it_is(make_run, tmp_path, monkeypatch, start):
    run = make_run(imitate__start=start)
    base = load(run)
    monkeypatch.setattr(proposals, "propose", lambda *a, **k: EDITS)
    policy = control.random_kept(run, base, [PASSAGES[:2]] * 3, tmp_path)
    assert is_deleted(base) == {False} == is_deleted(policy)
