"""Few-shot tasks in the round: what is drawn, trained, asked and rewarded."""

import contextlib
import dataclasses
import json
import pathlib
import random
import re

import pytest
import tiny_model

from seal_jax.embedded import settings as pretrain_settings
from seal_jax.experiment import kinds
from seal_jax.generation import policies
from seal_jax.rounds import proposals, trials
from seal_jax.rounds.few_shot_settings import FewShot
from seal_jax.rounds.graded import Exam
from seal_jax.runtime import metrics
from seal_jax.runtime.journal import Journal
from seal_jax.tasks import few_shot
from seal_jax.tasks.arc import examples as arc_data
from seal_jax.tasks.arc import generated
from seal_jax.tasks.arc import self_edit as arc_edit
from seal_jax.tasks.arc import text as arc_text
from seal_jax.tasks.base import Edit, Reading
from seal_jax.training import capacity, packed
from seal_jax.training.settings import MASKED, PADDED

TASKS = generated.tasks("train", seed=3, start=0, count=12)
TWO_TESTS = next(task for task in TASKS if len(task.tests) == 2)
ONE_TEST = next(task for task in TASKS if len(task.tests) == 1)
NO_DATA = arc_data.Switches(False, False, False, False)
ALL_DATA = arc_data.Switches(True, True, True, True)


@pytest.fixture(scope="module")
def blank():
    """The embedded model's tokenizer and shapes, without its weights."""
    return policies.describe(an_experiment().model)


def an_experiment(**changes) -> FewShot:
    values = tiny_model.load_config("arc", "tiny")
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    values.update_from_flattened_dict(dotted)
    exp = kinds.read(values.to_dict())
    assert isinstance(exp, FewShot)
    return exp


def edit_text(switches=NO_DATA, *, output_only=True, rate=1e-2, epochs=2) -> str:
    return arc_edit.SelfEdit(switches, output_only, rate, epochs).json()


def edit(text: str) -> Edit:
    return Edit(0, 0, "prompt", text)


# What is loaded


def write_arc(folder: pathlib.Path, tasks) -> str:
    """Tasks as one file for each."""
    folder.mkdir()
    for task in tasks:
        parts = {"train": task.train, "test": task.tests}
        value = {k: [pair._asdict() for pair in own] for k, own in parts.items()}
        (folder / f"{task.id}.json").write_text(json.dumps(value))
    return str(folder)


def test_generated_tasks_are_new_in_every_round_and_held_out_ones_apart():
    exp = an_experiment(scale__rounds=3, scale__tasks=4, scale__heldout_tasks=5)
    rounds, heldout = few_shot.load(exp)
    assert [len(own) for own in rounds] == [4, 4, 4] and len(heldout) == 5
    ids = [task.id for own in (*rounds, heldout) for task in own]
    assert len(set(ids)) == len(ids)
    again = few_shot.load(dataclasses.replace(exp))
    assert again == (rounds, heldout)
    other = few_shot.load(an_experiment(seed=1))
    assert not {t.id for t in other[1]} & {t.id for t in heldout}


def arc_experiment(tmp_path, **changes):
    return an_experiment(
        task__name="arc",
        task__train=write_arc(tmp_path / "train", TASKS[:3]),
        task__heldout=write_arc(tmp_path / "heldout", TASKS[3:6]),
        **({"scale__tasks": 2, "scale__heldout_tasks": 2} | changes),
    )


def test_rounds_on_files_go_through_the_list_again(tmp_path):
    train_ids = tuple(task.id for task in (TASKS[2], TASKS[0], TASKS[1]))
    exp = arc_experiment(tmp_path, scale__rounds=2, task__train_ids=train_ids)
    rounds, heldout = few_shot.load(exp)
    assert [[t.id for t in own] for own in rounds] == [
        [train_ids[0], train_ids[1]],
        [train_ids[2], train_ids[0]],
    ]
    assert [t.id for t in heldout] == sorted(t.id for t in TASKS[3:6])[:2]


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"scale__tasks": 4}, ["scale.tasks=4", "task.train", "use 3"]),
        ({"scale__heldout_tasks": 9}, ["scale.heldout_tasks=9", "use 3"]),
        ({"task__train_ids": ("nope",)}, ["task.train:", "'nope'", "one of the 3"]),
    ],
)
def test_data_that_is_not_there_is_refused_by_name(tmp_path, changes, parts):
    with pytest.raises(ValueError) as caught:
        few_shot.load(arc_experiment(tmp_path, **changes))
    message = str(caught.value)
    assert [part for part in parts if part not in message] == [], message
    assert "\n" not in message


def test_a_task_in_both_sets_is_refused(tmp_path):
    folder = write_arc(tmp_path / "both", TASKS[:3])
    exp = an_experiment(
        task__name="arc",
        task__train=folder,
        task__heldout=folder,
        scale__tasks=2,
        scale__heldout_tasks=2,
    )
    with pytest.raises(ValueError, match="among the training and the held-out tasks"):
        few_shot.load(exp)


# What does not fit


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"task__oracle": "{}"}, ["task.oracle", "data_generation"]),
        ({"data__max_tokens": 20}, ["no training line", "data.max_tokens=20"]),
        ({"data__max_side": 2}, ["no training line", "data.max_side=2"]),
        ({"views__max_tokens": 20}, ["no view", "views.max_tokens=20"]),
        (
            {"inner__row_tokens": 64, "inner__step_tokens": 128},
            ["a training line takes", "64 fit", "inner.row_tokens"],
        ),
        ({"answer__max_tokens": 2000}, ["a view of a test", "answer.max_tokens"]),
        ({"answer__max_tokens": 5}, ["an answer takes", "5 fit", "raise answer.max"]),
        ({"edit__max_steps": 30}, ["task.oracle takes 60 steps", "at most 1 epochs"]),
        (
            {"edit__max_steps": 1, "ladder": ("random",)},
            ["edit.max_steps=1 must leave room"],
        ),
        ({"propose__max_tokens": 2040}, ["its self-edit prompt", "8 fit"]),
        ({"propose__prompt": "nothing"}, ["'nothing'", "plain"]),
        ({"answer__prompt": "nothing"}, ["'nothing'", "plain"]),
    ],
)
def test_what_does_not_fit_is_refused_with_the_tasks_name(blank, changes, parts):
    with pytest.raises(ValueError) as caught:
        few_shot.make(an_experiment(**changes), blank, [], [ONE_TEST])
    message = str(caught.value)
    assert [part for part in parts if part not in message] == [], message
    assert "\n" not in message


def test_the_longest_line_of_any_configuration_decides_whether_it_fits(blank):
    task = few_shot.FewShotTask(an_experiment(data__most=2000), blank)
    job = task.job(ONE_TEST, edit(edit_text(ALL_DATA)), ())
    longest = max(map(len, job.lines))
    for room, fits in ((longest, True), (longest - 1, False)):
        sizes = {"inner__tile": 1, "inner__row_tokens": room}
        exp = an_experiment(**sizes, inner__step_tokens=2 * room)
        with (
            contextlib.nullcontext()
            if fits
            else pytest.raises(ValueError, match=f"takes {longest} tokens, {room} fit")
        ):
            few_shot.make(exp, blank, [], [ONE_TEST])


# Self-edits


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (edit_text(), Reading()),
        (f" \n{edit_text()} ", Reading()),
        ("", Reading("not json", again=True)),
        ("Sure: " + edit_text(), Reading("not json", again=True)),
        (edit_text(rate=5.0), Reading("learning rate", again=True)),
        (edit_text(epochs=51), Reading("epochs", again=True)),
        (edit_text(ALL_DATA, epochs=4), Reading("over budget")),
        (edit_text(ALL_DATA, epochs=3), Reading()),
    ],
)
def test_what_a_text_is_worth(blank, text, expected):
    """Forty sequences at most: three epochs of a batch of two are sixty steps."""
    task = few_shot.make(an_experiment(), blank, [], [ONE_TEST])
    assert task.read(ONE_TEST, text) == expected


def test_a_job_is_what_the_configuration_says(blank):
    exp = an_experiment()
    task = few_shot.make(exp, blank, [], [ONE_TEST])
    job = task.job(ONE_TEST, edit(edit_text(rate=0.003, epochs=5)), (1, 2))
    assert (job.learning_rate, job.epochs, job.seed) == (0.003, 5, (1, 2))
    assert (job.batch, job.warmup, job.schedule) == (2, 5, "cosine")
    assert job.loss.mode == MASKED
    # Lengths are counted by shapes; those of real lines are the same.
    pairs = zip(
        job.lines,
        arc_data.dataset(ONE_TEST, NO_DATA, exp.data, length=lambda e: 1),
        strict=True,
    )
    assert all(len(ids) == task._length(example) for ids, example in pairs)
    examples = arc_data.dataset(ONE_TEST, NO_DATA, exp.data, length=lambda e: 1)
    assert len(job.lines) == len(job.given) == len(examples)
    for ids, given, example in zip(job.lines, job.given, examples, strict=True):
        prompt = arc_text.example_prompt(
            example, chat=arc_text.CHATS["plain"], instruction=""
        )
        answer = arc_text.example_answer(example)
        assert list(ids) == blank.encode(prompt + answer)
        assert given == len(blank.encode(prompt))


def test_all_tokens_carry_loss_if_the_strategy_says_so(blank):
    task = few_shot.make(an_experiment(), blank, [], [ONE_TEST])
    job = task.job(ONE_TEST, edit(edit_text(output_only=False)), ())
    assert job.given == ()
    assert job.lines == task.job(ONE_TEST, edit(edit_text()), ()).lines


def test_padding_carries_loss_only_if_it_is_asked_for(blank):
    exp = an_experiment(inner__padding="padded", inner__pad_samples=3)
    job = few_shot.make(exp, blank, [], [ONE_TEST]).job(ONE_TEST, edit(edit_text()), ())
    assert (job.loss.mode, job.loss.pad_samples) == (PADDED, 3)


def test_edits_of_the_same_switches_share_one_dataset(blank):
    task = few_shot.make(an_experiment(), blank, [], [ONE_TEST])
    one, two = (
        task.job(ONE_TEST, edit(edit_text(ALL_DATA, rate=rate, epochs=e)), (e,))
        for rate, e in ((0.1, 1), (0.001, 3))
    )
    assert one.lines is two.lines


def test_baselines_write_valid_configurations_within_the_budget(blank):
    exp = an_experiment(scale__heldout_edits=20)
    task = few_shot.make(exp, blank, [], TASKS)
    seen = []
    for item in TASKS:
        texts = task.fixed("random", item)
        assert texts is not None and len(set(texts)) == 20
        assert texts == few_shot.make(exp, blank, [], [item]).fixed("random", item)
        assert all(task.read(item, text) == Reading() for text in texts)
        seen += [arc_edit.parse(text, exp.edit) for text in texts]
    assert {e.switches for e in seen} >= {NO_DATA, ALL_DATA}
    assert {e.output_only for e in seen} == {True, False}
    for arm in ("oracle", "constant"):
        assert task.fixed(arm, ONE_TEST) == [exp.task.oracle] * 20
    assert task.fixed("self_edits", ONE_TEST) is None
    assert task.fixed("round_1", ONE_TEST) is None


# Answers


def test_prompts_show_every_view_and_never_the_answer_or_a_date(blank):
    task = few_shot.make(an_experiment(task__chat="plain"), blank, [], [TWO_TESTS])
    prompts, gold = task.prompts(TWO_TESTS), task.gold(TWO_TESTS)
    assert len(prompts) == len(gold) > 10
    for prompt, answer in zip(prompts, gold, strict=True):
        assert answer.removesuffix("#") not in prompt.rpartition("user")[2]
        assert not re.search(r"20\d\d|[Dd]ate", prompt)
    asked = [arc_text.grid_text(test.input) for test in TWO_TESTS.tests]
    assert all(any(grid in p for p in prompts) for grid in asked)


@pytest.mark.parametrize("item", [ONE_TEST, TWO_TESTS])
def test_the_reward_needs_every_test(blank, item):
    task = few_shot.make(an_experiment(), blank, [], [item])
    gold = task.gold(item)
    half = len(gold) // len(item.tests)
    wrong = ["[[1]]#"] * len(gold)
    mixed = [*gold[:half], *wrong[half:]]
    answered = [(item, gold), (item, wrong), (item, mixed), (item, ["?"] * len(gold))]
    expected = [1.0, 0.0, 1.0 if len(item.tests) == 1 else 0.0, 0.0]
    assert task.score(answered) == expected
    assert task.scores_of(item) == 1


def test_rows_say_what_was_configured_and_guessed(blank):
    exp = an_experiment()
    task = few_shot.make(exp, blank, [], [TWO_TESTS])
    answers = task.answers_row(TWO_TESTS, task.gold(TWO_TESTS), [1.0])
    assert [row["right"] for row in answers] == [True, True]
    assert all(row["parsed"] == row["views"] > 0 for row in answers)
    for test, row in zip(TWO_TESTS.tests, answers, strict=True):
        assert test.output in row["guesses"]
    blanks = task.answers_row(TWO_TESTS, [""] * len(task.gold(TWO_TESTS)), [0.0])
    assert [(row["right"], row["parsed"]) for row in blanks] == [(False, 0)] * 2
    row = task.row(TWO_TESTS, edit(edit_text(ALL_DATA)))
    assert (row["sequences"], row["steps"]) == (40, 40)
    assert row["switches"]["basic"] is True and row["refused"] is None
    refused = dataclasses.replace(edit("?"), refused="not json", redrawn=("epochs",))
    row = task.row(TWO_TESTS, refused)
    assert row["redrawn"] == ["epochs"] and "steps" not in row
    shown = task.item_row(TWO_TESTS)
    assert json.loads(json.dumps(shown))["task_id"] == TWO_TESTS.id
    assert len(shown["test"]) == 2


# Drawing again


@pytest.fixture
def make_run(tmp_path, blank):
    with contextlib.ExitStack() as stack:

        def make(**changes):
            stack.close()
            exp = an_experiment(**changes)
            journal = Journal(tmp_path / "journal.jsonl")
            return trials.Run(
                exp=exp,
                inner=capacity.build(exp.inner, step_tokens=768, adapters=3),
                mesh=None,
                journal=stack.enter_context(journal),
                metrics=stack.enter_context(metrics.Metrics(tmp_path)),
                task=few_shot.make(exp, blank, [], TASKS[:2]),
                say=lambda line: None,
            )

        yield make


def propose(run, blank):
    return proposals.propose(
        run, blank, TASKS[:2], phase="round_1", round_index=1, count=2
    )


def test_what_is_not_valid_is_drawn_again_and_what_is_over_budget_is_not(
    make_run, blank, monkeypatch
):
    good, over = edit_text(), edit_text(ALL_DATA, epochs=30)
    told = iter([[good, "?", "{}", over], ["??", good], ["[]"]])
    asked = []

    def write(writer, prompts, keys, decoding, *, tick):
        asked.append(len(prompts))
        return next(told)

    monkeypatch.setattr(policies, "write", write)
    edits = propose(make_run(task__attempts=3), blank)
    assert asked == [4, 2, 1]
    assert [e.text for e in edits] == [good, "[]", good, over]
    assert [e.redrawn for e in edits] == [
        (),
        ("not json", "not json"),
        ("missing key",),
        (),
    ]
    assert [e.refused for e in edits] == [None, "not one object", None, "over budget"]
    # A second process reads the same from the journal.
    monkeypatch.setattr(policies, "write", None)
    assert propose(make_run(task__attempts=3), blank) == edits


def test_a_refused_edit_is_not_trained(make_run, blank, monkeypatch):
    def train(*args, **kwargs):
        raise AssertionError("trained")

    monkeypatch.setattr(packed, "train", train)
    run = make_run()
    edits = [dataclasses.replace(edit("?"), refused="not json")] * 2
    exams = [Exam(task) for task in TASKS[:2]]
    outcomes = trials.adapt_and_answer(
        run, blank, edits, exams, phase="round_1", round_index=1, seeds=range(2)
    )
    assert outcomes == [[], []]


def test_attempts_draw_with_keys_of_their_own(make_run, blank, monkeypatch):
    drawn = []

    def write(writer, prompts, keys, decoding, *, tick):
        drawn.extend(str(key) for key in keys)
        return ["?"] * len(prompts)

    monkeypatch.setattr(policies, "write", write)
    propose(make_run(task__attempts=4), blank)
    assert len(drawn) == len(set(drawn)) == 16


def test_the_corpus_has_the_config_files_prompts(blank):
    """Pretraining and the task tell grids in the same words."""
    corpus = pretrain_settings.CORPORA["grids"]()
    task = few_shot.make(an_experiment(), blank, [], [ONE_TEST])
    texts = [*task.prompts(ONE_TEST), task.propose_prompt(ONE_TEST)]
    texts += [task.gold(ONE_TEST)[0], *(task.fixed("oracle", ONE_TEST) or ())]
    known = set(corpus.words)
    assert {w for text in texts for w in corpus.pattern.findall(text)} <= known
    document = corpus.document(random.Random(0), 1.0)
    assert isinstance(document[0][0], str)
