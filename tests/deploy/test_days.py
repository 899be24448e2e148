"""Runs on the job on a very small model: nights, mornings, resumed runs."""

import dataclasses
import json

import deploy_runs
import jax
import numpy as np
import pytest
import tiny_model

from seal_jax.continual import ask as continual_ask
from seal_jax.deploy import asking, days, jobs, lessons, night, sessions
from seal_jax.deploy import table as deploy_table
from seal_jax.deploy.stint import Stint
from seal_jax.experiment import one_run
from seal_jax.generation import policies
from seal_jax.rounds import grading
from seal_jax.runtime import checkpoint
from seal_jax.runtime.journal import Journal
from seal_jax.tasks import quiz, self_edit

ARMS = ("none", "edits+replay+gate", "distill+dream")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(autouse=True)
def coin(monkeypatch):
    monkeypatch.setattr(grading, "scorer", lambda cfg, workdir: tiny_model.toss)


@pytest.fixture(scope="module")
def walked(model, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grading, "scorer", lambda cfg, workdir: tiny_model.toss)
        folder = tmp_path_factory.mktemp("runs") / "whole"
        return deploy_runs.Walked(model, folder, arms=ARMS)


def blocks(folder, count, like):
    return [checkpoint.restore(folder, t, like)[0] for t in range(1, count + 1)]


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def job_of(stint, s, t, own, before):
    """A stream's training, with what its arm puts beside it."""
    return jobs.job(stint, s, t, jobs.tonight(stint, s, t, own, before))


# One session a night is a step of a sequence


def test_a_night_of_one_session_is_a_step_of_continual(model, tmp_path):
    """Statements, merged: the same texts, weights bit for bit, and answers."""
    shared = {"inner__epochs": 2}
    learned = deploy_runs.merged(model, tmp_path / "a", **shared)
    job = deploy_runs.Walked(
        model,
        tmp_path / "b",
        arms=("edits+merge",),
        stream__sessions=1,
        stream__asked=6,
        **shared,
    )
    like = job.stint("edits+merge").setting.block
    folder = learned.workdir / "checkpoints" / "continual" / "merge"
    for t in (1, 2):
        step = learned.journal[f"continual/merge/{t}"]
        assert job.unit("edits+merge", t, "write")["texts"] == step["texts"]
        before = checkpoint.restore(folder, t, like)[0]
        after = checkpoint.restore(job.checkpoints("edits+merge"), t, like)[0]
        same(before, after)
        assert max(float(np.abs(x).max()) for x in jax.tree.leaves(after)) > 0
        morning = job.unit("edits+merge", t, "ask")
        for s in range(2):
            # Which of all six are asked was drawn, in the passage's own order.
            assert morning["answers"][s] == step["answers"][s][:t]
            assert morning["general"][s] == step["general"][s]


# Nothing happens


def idle(path):
    """Stream a: days 1 and 3. Stream b: day 3 alone. Nobody on day 2."""
    session = deploy_runs.session
    return deploy_runs.write_log(
        path,
        [
            session("a", 1, "Ada Quill"),
            session("a", 3, "Boris Fenn"),
            session("b", 3, "Carla Marsh"),
        ],
    )


@pytest.fixture(scope="module")
def idled(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("idle")
    log = idle(folder / "log.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grading, "scorer", lambda cfg, workdir: tiny_model.toss)
        return deploy_runs.Walked(
            *(model, folder / "run"),
            arms=("quiz+replay", "edits+keep"),
            stream__logs=str(log),
            stream__days=3,
            retain__keep_floor=0.3,
            stream__probes=0,
        )


@pytest.mark.parametrize("arm", ["quiz+replay", "edits+keep"])
def test_a_night_without_sessions_changes_nothing(idled, arm):
    like = idled.stint(arm).setting.block
    first, second, third = blocks(idled.checkpoints(arm), 3, like)
    nothing = jax.tree.map(np.zeros_like, first)
    same(second, nothing)
    # The second stream had no session on the first day either, the first one had.
    for leaf in jax.tree.leaves(first):
        assert not np.asarray(leaf)[1].any()
    for block, s in ((first, 0), (third, 0), (third, 1)):
        assert any(np.asarray(x)[s].any() for x in jax.tree.leaves(block))
    entry = idled.unit(arm, 2, "adapt")
    assert entry["scales"] == [0.0, 0.0] and entry["adapters"] == entry["tokens"] == 0
    one, two = (idled.unit(arm, t, "ask") for t in (1, 2))
    for key in ("answers", "asked", "general", "drift"):
        assert one[key] == two[key]
    assert one["answers"][1] == [] and one["answers"][0]
    by_night = idled.row(arm)["by_night"]
    assert by_night["learned"][1] is None and by_night["kept"][0] is None
    assert by_night["kept"][1]["mean"] == by_night["learned"][0]["mean"]
    assert idled.row(arm)["costs"]["adapters"] == [1, 0, 2]
    # Nothing is probed, and nothing has other words for it.
    for measure in ("general", "rephrased", "unasked"):
        assert idled.row(arm)[measure] is None
    assert idled.summary["gold"] == "logged" and idled.summary["sessions"] == 3


def test_fewer_streams_than_the_config_takes_are_learned_too(model, tmp_path):
    """One user's log where two streams were asked for, each night on the one before."""
    log = deploy_runs.write_log(
        tmp_path / "log.jsonl",
        [deploy_runs.session("a", day, "Ada Quill") for day in (1, 2)],
    )
    run = deploy_runs.Walked(
        *(model, tmp_path / "run"),
        arms=("quiz",),
        stream__logs=str(log),
        stream__probes=0,
    )
    assert run.exp.stream.count == 2 and run.summary["streams"] == 1
    assert run.row("quiz")["costs"]["adapters"] == [1, 1]
    assert run.stint("quiz").setting.engine.frozen_rows == 1


def test_a_question_goes_to_the_adapter_of_its_night(idled, monkeypatch):
    """Nights that added nothing have none, and count for nothing."""
    arm, asked = "edits+keep", {}

    def answer(policy, adapters, prompts, keys, decoding):
        asked.update({a: own for a, own in enumerate(prompts) if own})
        return [["x"] * len(own) for own in prompts]

    monkeypatch.setattr(policies, "answer", answer)
    stint = idled.stint(arm)
    steps = [
        {unit: idled.unit(arm, t, unit) for unit in ("write", "teach", "adapt")}
        for t in (1, 2, 3)
    ]
    told = [days._told(stint, steps, [s["adapt"] for s in steps], s) for s in range(2)]
    assert [sorted(own) for own in told] == [[0, 2], [2]]
    asking.morning(stint, stint.setting.empty, 3, told)
    # Three blocks for each of two streams, and the base last, for the probes.
    about = {a: [p for p in own if "Topic: Karsk\n" in p] for a, own in asked.items()}
    assert [a for a, own in about.items() if own] == [0, 2, 5]
    for adapter, name in ((0, "Ada Quill"), (2, "Boris Fenn"), (5, "Carla Marsh")):
        assert len(about[adapter]) == 2
        assert all(name in prompt for prompt in about[adapter])


def test_a_day_that_teachers_have_no_room_for_is_refused(model, tmp_path):
    log = deploy_runs.write_log(
        tmp_path / "log.jsonl", [deploy_runs.session("a", 1, "Ada Quill")] * 4
    )
    # Four sessions of rye bread and cello, with their ends; room for two of 4 answers.
    changes = {"arms": ("distill",), "stream__logs": str(log), "stream__asked": 1}
    with pytest.raises(ValueError, match=r"have 20 tokens, .* for 8; use .*tokens=20"):
        deploy_runs.Walked(model, tmp_path / "run", **changes)
    # Statements of four sessions, of at most 8 tokens each, where two were expected.
    changes |= {"arms": ("distill_edits",)}
    with pytest.raises(ValueError, match=r"have 32 tokens, .* for 16; use .*tokens=32"):
        deploy_runs.Walked(model, tmp_path / "run", **changes)


def test_logged_answers_count_as_far_as_they_are_trained_on(model, tmp_path):
    """Two of 7 words, cut to 3 without their end, and two of 2 with theirs."""
    long = [{"q": "What?", "a": "rye bread rye bread rye bread rye"}] * 2
    short = [{"q": "What?", "a": "rye bread"}] * 2
    rows = [deploy_runs.session("a", 1, "Ada", turns=t) for t in (long, short)]
    rows += [deploy_runs.session("a", day, "Ada", turns=short) for day in (2, 3)]
    log = deploy_runs.write_log(tmp_path / "log.jsonl", rows)
    exp = deploy_runs.built(model, stream__logs=str(log), stream__days=3)
    blank = policies.describe(exp.model)
    (own,) = sessions.load(exp).days

    def most(arm, **changes):
        changed = deploy_runs.built(model, stream__logs=str(log), **changes)
        return days.taught_targets(changed, arm, own, blank)

    assert most("distill") == 2 * 3 + 2 * 3 and most("quiz") == 0
    assert most("distill+dream") == 12 + 2 * 2 * 4
    # On the third day all lines of both before can come again, or one of 4 tokens.
    assert most("distill+replay") == 6 + 18 and most("distill_edits") == 2 * 8
    assert most("distill+replay", retain__replay=1) == 12
    assert most("distill_edits+replay") == 8 + 24
    assert most("distill_edits", inner__teach__tokens=5) == 0
    # By its own answers, which may be as long as any.
    assert most("on_policy") == 4 * 4 and most("on_policy+dream") == 16 + 2 * 2 * 4
    assert most("on_policy+replay") == 8 + 24
    practised = deploy_runs.built(
        model, arms=("on_policy",), stream__logs=str(log), stream__days=3
    )
    assert days.noted(practised, sessions.load(practised), blank) == []
    (line,) = days.noted(exp, sessions.load(exp), blank)
    assert "2 of 8 answers are longer than answer.max_tokens=3" in line
    # Answers that are drawn anew are not trained on as they were logged.
    mixed = deploy_runs.built(
        model, arms=("mix",), stream__logs=str(log), stream__days=3
    )
    assert days.noted(mixed, sessions.load(mixed), blank) == []


def test_sessions_that_cannot_choose_and_contexts_that_say_nothing_are_told(
    model, tmp_path
):
    def noted(sizes, contexts, arms=("quiz+gate",)):
        turns = [{"q": f"What {i}?", "a": "stew"} for i in range(2)]
        rows = [
            deploy_runs.session("a", day, "Ada", turns=turns[:size], context=context)
            for day, (size, context) in enumerate(zip(sizes, contexts, strict=True), 1)
        ]
        log = deploy_runs.write_log(tmp_path / "log.jsonl", rows)
        exp = deploy_runs.built(
            model, arms=arms, stream__logs=str(log), stream__days=len(rows)
        )
        return days.noted(exp, sessions.load(exp), policies.describe(exp.model))

    own = [f"Ada cooks {i}." for i in range(6)]
    assert noted([2] * 6, own) == noted([1] * 6, own, arms=("quiz",)) == []
    (line,) = noted([1] * 6, own)
    assert "all sessions have one question" in line and "nothing is gated" in line
    (line,) = noted([1, 2, 2, 1, 2, 2], own)
    assert "2 of 6 sessions have one question" in line
    helpful = "You are helpful."
    (line,) = noted([2] * 6, [*own[:2], *[helpful] * 4])
    assert f"4 of 6 sessions have one context, '{helpful}'" in line
    assert noted([2] * 6, [*own[:3], *[helpful] * 3]) == []


@pytest.mark.parametrize(
    ("arms", "changes", "refused"),
    [
        (("none", "quiz"), {}, ""),
        (("distill",), {}, ""),
        (("edits",), {"night__context": "edit"}, ""),
        (("edits",), {}, "its training line takes"),
        (("quiz",), {"inner__teach__passage_line": True}, "its training line takes"),
        (
            ("edits",),
            {"night__context": "edit", "propose__max_tokens": 240},
            "its self-edit prompt takes",
        ),
        (("quiz",), {"propose__max_tokens": 240}, ""),
        (
            ("quiz+dream",),
            {"label_free__quiz__max_tokens": 240},
            "its self-edit prompt takes",
        ),
    ],
)
def test_a_context_must_fit_where_it_is_trained_on(
    model, tmp_path, arms, changes, refused
):
    text = "Ada Quill cooks rye bread. " * 22
    log = deploy_runs.write_log(
        tmp_path / "log.jsonl", [deploy_runs.session("a", 1, "Ada", context=text)]
    )
    exp = deploy_runs.built(
        model, arms=arms, stream__logs=str(log), stream__probes=0, **changes
    )
    ((passage,),), probes = days.load(exp)
    blank = policies.describe(exp.model)
    assert exp.inner.row_tokens < len(blank.encode(text)) < blank.context - 20
    if not refused:
        assert days.make(exp, blank, [passage], probes)
        return
    with pytest.raises(ValueError, match=refused):
        days.make(exp, blank, [passage], probes)


@pytest.mark.parametrize(
    ("arms", "refused"),
    [
        (("none", "quiz"), "question that is learned takes"),
        (("none", "on_policy"), "question that is learned takes"),
        (("none", "edits"), None),
    ],
)
def test_a_question_must_fit_a_line_where_it_is_learned(model, tmp_path, arms, refused):
    asked = "What does Ada Quill cook" + " and what does she cook" * 20 + "?"
    log = deploy_runs.write_log(
        tmp_path / "log.jsonl",
        [deploy_runs.session("a", 1, "Ada", turns=[{"q": asked, "a": "bread"}])],
    )
    exp = deploy_runs.built(model, arms=arms, stream__logs=str(log), stream__probes=0)
    ((passage,),), probes = days.load(exp)
    blank = policies.describe(exp.model)
    assert exp.inner.row_tokens < len(blank.encode(asked)) < blank.context - 20
    if not refused:
        assert days.make(exp, blank, [passage], probes)
        return
    with pytest.raises(ValueError, match=refused) as told:
        days.make(exp, blank, [passage], probes)
    assert "inner.row_tokens" in str(told.value) and "\n" not in str(told.value)


# By day, by night, in the morning


def test_by_day_contexts_are_in_view_and_only_first_lines_are_logged(walked):
    text = (walked.workdir / "sessions.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["arm"] for row in rows[::8]] == list(ARMS)
    for arm in ARMS[1:]:
        own = [row for row in rows if row["arm"] == arm]
        assert [(r["day"], r["stream"]) for r in own] == [
            (t, s) for t in (1, 2) for s in "0011"
        ]
        for row in own:
            answers = [turn["a"] for turn in row["turns"]]
            assert answers == list(map(quiz.first_line, answers))
            assert len(answers) == 4 and row["context"] and row["title"]
    sessions = walked.streams.days[1][0]
    shown = [row for row in rows if (row["arm"], row["stream"]) == (ARMS[2], "1")]
    for session, row in zip(sessions, shown, strict=False):
        prompts = walked.stint(ARMS[2]).viewed.task.prompts(session.context)
        assert all(session.context.text in prompt for prompt in prompts)
        assert [t["q"] for t in row["turns"]] == [
            q.question for q in session.context.questions
        ]


def test_users_ask_some_facts_and_the_others_are_never_asked(walked):
    for s in range(2):
        for session in walked.streams.all(s):
            asked = {q.answer for q in session.context.questions}
            other = {q.answer for q in session.unasked.questions}
            assert len(asked) == 4 and len(other) == 2 and not asked & other
            # The same facts in other words.
            assert [q.answer for q in session.rephrased.questions] == [
                q.answer for q in session.context.questions
            ]
            words = {q.question for q in session.rephrased.questions}
            assert not words & {q.question for q in session.whole.questions[:4]}


def test_a_night_trains_on_the_log_taught_with_the_context_in_view(walked):
    arm = "distill+dream"
    stint, task = walked.stint(arm), walked.state.task
    for t in (1, 2):
        learned = {unit: walked.unit(arm, t, unit) for unit in ("write", "teach")}
        said = walked.unit(arm, t, "day")["answers"]
        for s in range(2):
            own = jobs.lessons_of(stint, t, learned, s)
            job = lessons.job(task, stint.arm, "both", own, (0,))
            dreams = [pair for lesson in own for pair in lesson.dreams]
            pairs = [
                (session.context, q.question, answer)
                for session, answers in zip(stint.sessions(t)[s], said[s], strict=True)
                for q, answer in zip(session.context.questions, answers, strict=True)
            ]
            assert len(job.lines) == len(pairs) + len(dreams)
            encoder, template = walked.base, task.answer_template
            lines = dict(zip(job.lines, job.taught, strict=True))
            for about, question, answer in pairs:
                tail = encoder.encode(answer)
                closed = self_edit.answer_prompt(template, about, question)
                seen = self_edit.in_view_prompt(template, about, question)
                taught = lines[(*encoder.sequence(closed), *tail)]
                assert taught.ids == (*encoder.sequence(seen), *tail)
                assert taught.count == len(tail) + 1


def test_dreams_are_new_questions_whose_answer_came_out_again(walked, monkeypatch):
    """Of two new ones the unsure one is dropped, and one that a user has asked."""
    stint = walked.stint("distill+dream")
    asked = stint.sessions(1)[0][0].context.questions[0].question
    quizzes = [
        f" {asked}\nAnswer: bread\nQuestion: Why cook?\nAnswer: bread",
        " Why sing?\nAnswer: cello\nQuestion: Why not?\nAnswer: stew",
    ]
    again = {asked: "bread", "Why cook?": "Bread.\nmore", "Why sing?": "stew"}

    def answers(setting, stack, prompts, stage, decoding):
        assert decoding.temperature == 0.0
        return [
            [next((a for q, a in again.items() if q in p), "stew") for p in own]
            for own in prompts
        ]

    monkeypatch.setattr(night.continual_step, "written", answers)
    said = walked.unit("distill+dream", 1, "day")["answers"]
    written = {"texts": [[], []], "dreams": [quizzes, ["", ""]], "seconds": 0.0}
    taught = night.teach(stint, stint.setting.empty, 1, said, written)
    assert taught["dreams"] == [
        [[("Why cook?", "Bread.")], [("Why not?", "stew")]],
        [[], []],
    ]
    blank = sum(not a for own in said for answers in own for a in answers)
    assert taught["dropped"] == 2 + blank


def first_night(walked, arm):
    """What happened on day 1 and in the night after it, and the stacks then."""
    stint = walked.stint(arm)
    step = {
        **{unit: walked.unit(arm, 1, unit) for unit in ("day", "write", "teach")},
        "night": walked.unit(arm, 1, "adapt"),
        "morning": walked.unit(arm, 1, "ask"),
    }
    block, _ = checkpoint.restore(walked.checkpoints(arm), 1, stint.setting.block)
    return step, stint.setting.written(stint.setting.empty, block, 1)


@pytest.mark.parametrize("arm", ARMS[1:])
def test_nothing_that_is_trained_or_gated_reads_gold(walked, arm):
    def blind(session):
        context = session.logged(["nothing"] * len(session.context.questions))
        assert context != session.context
        return dataclasses.replace(session, context=context)

    streams = dataclasses.replace(
        walked.streams,
        days=tuple(
            tuple(tuple(map(blind, day)) for day in own) for own in walked.streams.days
        ),
    )
    texts = walked.journal["deploy/generic"]
    stint = Stint.of(walked.state, walked.base, arm, streams, walked.probes, texts)
    step, stack = first_night(walked, arm)
    said = stint.said(2, walked.unit(arm, 2, "day"))
    write = night.write(stint, stack, 2)
    teach = night.teach(stint, stack, 2, said, write)
    block, entry = night.train(
        stint, stack, 2, [step], {"write": write, "teach": teach}
    )
    made, _ = checkpoint.restore(walked.checkpoints(arm), 2, stint.setting.block)
    same(block, made)
    gates = [[[*tried] for tried in own] for own in entry["gates"]]
    assert gates == walked.unit(arm, 2, "adapt")["gates"]


def test_a_second_night_with_replay_has_room_for_its_teachers(walked):
    arm = "distill+replay"
    stint, (step, _) = walked.stint(arm), first_night(walked, "distill+dream")
    bare = [[[] for _ in own] for own in step["teach"]["dreams"]]
    step = {**step, "teach": {**step["teach"], "dreams": bare}}
    own = jobs.lessons_of(stint, 2, step, 0)
    planned = job_of(stint, 0, 2, own, [step])
    laid = sum(one.targets for one in planned.taught)
    assert len(planned.lines) == 16
    bank = stint.exp.engine_of("distill").bank
    assert bank == 8 * 4 and stint.exp.engine_of(arm).bank == 2 * bank >= laid > bank


def test_pairs_without_an_answer_are_dropped(walked):
    stint = walked.stint("quiz")
    said = [[["x", " ", "", "y"]] * 2, [[""] * 4] * 2]
    nothing = {"texts": [[], []], "dreams": [[], []], "seconds": 0.0}
    taught = night.teach(stint, stint.setting.empty, 1, said, nothing)
    assert taught["dropped"] == 2 * 2 + 2 * 4
    left = [[[a for _, a in pairs] for pairs in own] for own in taught["logged"]]
    assert left == [[["x", "y"]] * 2, [[], []]]
    learned = {"write": nothing, "teach": taught}
    assert job_of(stint, 1, 1, jobs.lessons_of(stint, 1, learned, 1), []) is None
    # What nothing is asked of loses nothing.
    taught = night.teach(walked.stint("edits"), stint.setting.empty, 1, said, nothing)
    assert taught["dropped"] == 0


def test_drift_is_measured_on_texts_that_no_night_trains_on(walked):
    unseen = walked.journal["deploy/generic"]
    beside = days.texts_beside(walked.state, walked.base, unseen)
    assert beside and not [ids for ids in beside if ids in unseen]
    # Of what is left after those that are the same.
    repeated = days.texts_beside(walked.state, walked.base, beside[:1])
    assert beside[0] not in repeated
    parts = walked.streams, walked.probes, unseen, beside
    stint = Stint.of(walked.state, walked.base, "quiz+kl", *parts)
    loud = jax.tree.map(lambda x: x + 0.3, stint.setting.empty)
    assert asking.drift(stint, loud) == asking.drift(walked.stint("quiz"), loud)
    step, _ = first_night(walked, "distill+dream")
    own = jobs.lessons_of(stint, 1, step, 0)
    planned = job_of(stint, 0, 1, own, [])
    assert planned.beside == tuple(map(tuple, beside))


@pytest.fixture
def graded(monkeypatch):
    """What is graded from here on, group by group."""
    found, real = [], continual_ask.graded

    def seen(setting, groups, flat):
        found.append(groups)
        return real(setting, groups, flat)

    monkeypatch.setattr(continual_ask, "graded", seen)
    return found


def test_the_gate_asks_by_what_was_logged(walked, graded):
    """Its gold is the answers of the day; the questions that report never choose."""
    arm = "edits+replay+gate"
    stint = walked.stint(arm)
    first = {
        **{unit: walked.unit(arm, 1, unit) for unit in ("day", "write", "teach")},
        "night": walked.unit(arm, 1, "adapt"),
        "morning": walked.unit(arm, 1, "ask"),
    }
    now = {unit: walked.unit(arm, 2, unit) for unit in ("write", "teach")}
    stack = stint.setting.empty
    block, _ = checkpoint.restore(walked.checkpoints(arm), 1, stint.setting.block)
    stack = stint.setting.written(stack, block, 1)
    _, entry = night.train(stint, stack, 2, [first], now)
    assert entry["scales"] == walked.unit(arm, 2, "adapt")["scales"]
    assert len(graded) >= 2
    for groups in graded:
        for s, passages in enumerate(groups):
            for i, passage in enumerate(passages):
                answers = {
                    q.question: answer
                    for q, answer in zip(
                        stint.sessions(1)[s][i].context.questions,
                        first["day"]["answers"][s][i],
                        strict=True,
                    )
                }
                for q in passage.questions:
                    assert q.answer == answers[q.question]
    choosing = [p for groups in graded for own in groups for p in own]
    assert choosing and {len(p.questions) for p in choosing} == {2}


def test_a_question_that_was_answered_blank_does_not_choose(walked, graded):
    """It has no gold; the others choose, and none that reports takes its place."""
    arm = "edits+replay+gate"
    stint = walked.stint(arm)
    step, stack = first_night(walked, arm)
    halves = stint.setting.halves
    answers = [[[*said] for said in own] for own in step["day"]["answers"]]
    answers[0][0] = [""] * len(answers[0][0])
    lost = halves[1][1].choosing[0]
    answers[1][1][lost] = " "
    day = {**step["day"], "answers": answers}
    now = {unit: walked.unit(arm, 2, unit) for unit in ("write", "teach")}
    night.train(stint, stack, 2, [{**step, "day": day}], now)
    assert len(graded) >= 2
    for groups in graded:
        for s, passages in enumerate(groups):
            for i, passage in enumerate(passages):
                asked = stint.sessions(1)[s][i].context.questions
                left = [
                    (asked[place].question, answers[s][i][place])
                    for place in halves[s][i].choosing
                    if answers[s][i][place].strip()
                ]
                assert [(q.question, q.answer) for q in passage.questions] == left
    assert len(graded[0][0][0].questions) == 0 and len(graded[0][1][1].questions) == 1


def test_days_that_changed_since_a_run_began_are_refused(walked, tmp_path):
    with Journal(tmp_path / "journal.jsonl") as journal:
        run = dataclasses.replace(walked.state, journal=journal)
        days.check_streams(run, walked.streams)
        days.check_streams(run, walked.streams)
        first, *rest = walked.streams.days
        joined = (tuple(x for day in first for x in day),)
        for other in (
            dataclasses.replace(walked.streams, days=(joined, *rest)),
            dataclasses.replace(walked.streams, names=("a", "b")),
        ):
            with pytest.raises(ValueError, match="begun with other days or names"):
                days.check_streams(run, other)


def test_the_teacher_is_the_base_or_last_nights_model(walked):
    arm = "distill+dream"
    stint = walked.stint(arm)
    now = {unit: walked.unit(arm, 2, unit) for unit in ("write", "teach")}
    block, _ = checkpoint.restore(walked.checkpoints(arm), 1, stint.setting.block)
    stack = stint.setting.written(stint.setting.empty, block, 1)
    losses = {}
    for teacher in ("base", "previous"):
        cfg = dataclasses.replace(stint.exp.night, teacher=teacher)
        exp = dataclasses.replace(stint.exp, night=cfg)
        own = dataclasses.replace(stint, exp=exp)
        _, entry = night.train(own, stack, 2, [], now)
        losses[teacher] = entry["losses"]
        assert entry["teacher_tokens"] > 0
    assert losses["base"] == walked.unit(arm, 2, "adapt")["losses"]
    assert losses["previous"] != losses["base"]


@pytest.mark.slow
def test_the_other_rules_run_too(model, tmp_path):
    """Mixed answers, statements by a teacher, and statements beside dreams."""
    arms = ("mix+dream", "distill_edits", "edits+dream+kl", "quiz+orthogonal")
    run = deploy_runs.Walked(model, tmp_path / "run", arms=arms, stream__days=1)
    for arm in arms:
        assert run.row(arm)["costs"]["adapters"] == [2] and not run.row(arm)["failed"]
    mixed = run.unit("mix+dream", 1, "teach")["logged"]
    given = run.unit("mix+dream", 1, "day")["answers"]
    assert [[[a for _, a in pairs] for pairs in own] for own in mixed] != given


def test_drift_is_none_without_an_edit_and_grows_with_one(walked):
    stint = walked.stint("distill+dream")
    empty = asking.drift(stint, stint.setting.empty)
    assert empty == pytest.approx([0.0, 0.0], abs=1e-6)
    assert walked.unit("distill+dream", 1, "ask")["drift"] != [0.0, 0.0]
    loud = jax.tree.map(lambda x: x + 0.3, stint.setting.empty)
    assert max(asking.drift(stint, loud)) > 0.01


# The summary


def test_the_row_that_learns_nothing_is_the_base_on_every_night(walked):
    row, base = walked.row("none"), walked.journal["deploy/base"]
    assert row["adapters"] == 0 == row["tokens"] and row["drift"]["mean"] == 0.0
    assert row["answers"] == base["questions"]
    parts = walked.stint("none").setting.halves
    for t in range(2):
        shown = [
            np.mean(
                [
                    base["asked"][s][i][q]
                    for i in (2 * t, 2 * t + 1)
                    for q in parts[s][i].reporting
                ]
            )
            for s in range(2)
        ]
        assert row["by_night"]["learned"][t]["mean"] == pytest.approx(np.mean(shown))


def test_the_summary_counts_what_was_done(walked):
    assert walked.summary["kind"] == "deploy" and walked.summary["gold"] == "given"
    assert [row["name"] for row in walked.summary["arms"]] == list(ARMS)
    for arm in ARMS[1:]:
        row = walked.row(arm)
        assert row["costs"]["adapters"] == [2, 2] and row["adapters"] == 4
        assert row["tokens"] == sum(row["costs"]["tokens"]) > 0
        for t in (1, 2):
            write = walked.unit(arm, t, "write")
            texts = [text for own in write["texts"] for text in own]
            dreams = [text for own in write["dreams"] for text in own]
            # A token for each word, and one that ends the text if there is room.
            words = [min(8, 1 + len(walked.base.encode(x))) for x in texts]
            words += [min(24, 1 + len(walked.base.encode(x))) for x in dreams]
            assert write["written_tokens"] == sum(words) > 0
            again = walked.unit(arm, t, "teach")["written_tokens"]
            # Each dream's question was put again, for an answer of three at most.
            assert 0 <= again <= 3 * 2 * len(dreams) and bool(again) <= bool(dreams)
            drawn = write["written_tokens"] + again
            assert row["costs"]["written_tokens"][t - 1] == drawn
        assert row["written_tokens"] == sum(row["costs"]["written_tokens"])
        assert row["by_night"]["kept"][0] is None and row["by_night"]["kept"][1]
        last = walked.unit(arm, 2, "ask")
        parts = walked.stint(arm).setting.halves
        final = [
            np.mean(
                [
                    scores[q]
                    for scores, half in zip(own, parts[s], strict=True)
                    for q in half.reporting
                ]
            )
            for s, own in enumerate(last["asked"])
        ]
        assert row["final"]["mean"] == pytest.approx(np.mean(final))
    assert walked.row("none")["written_tokens"] == 0
    keys = {(p["a"], p["b"], p["what"]) for p in walked.summary["paired"]}
    assert ("distill+dream", "none", "rephrased") in keys


def test_what_older_units_did_not_count_is_not_known(walked):
    """Tokens that were written: a row has none, if one of its nights has none."""
    arm = ARMS[1]
    stint = walked.stint(arm)
    units = ("day", "write", "teach", "adapt", "ask")
    names = {"adapt": "night", "ask": "morning"}
    steps = [
        {names.get(unit, unit): walked.unit(arm, t, unit) for unit in units}
        for t in (1, 2)
    ]
    write = {k: v for k, v in steps[1]["write"].items() if k != "written_tokens"}
    # For a time the unit called them `tokens`.
    first = {**steps[0]["write"], "tokens": steps[0]["write"]["written_tokens"]}
    del first["written_tokens"]
    old = [steps[0] | {"write": first}, steps[1] | {"write": write}]
    parts = stint.setting.halves, stint.streams
    row = deploy_table.arm_row(arm, *parts, old)
    told = deploy_table.summary(stint.exp, stint.streams, [row])["arms"][0]
    known = walked.row(arm)["costs"]["written_tokens"][0]
    assert told["costs"]["written_tokens"] == [known, None]
    assert told["written_tokens"] is None
    assert told["tokens"] == walked.row(arm)["tokens"]


def test_what_was_written_is_not_counted_as_trained(walked):
    with Journal(walked.workdir / "journal.jsonl") as journal:
        costs = one_run.costs(journal)
    assert costs["tokens"] == sum(row["tokens"] for row in walked.summary["arms"]) > 0
    assert sum(row["written_tokens"] for row in walked.summary["arms"]) > 0


def test_of_contexts_without_other_words_the_rest_are_told(walked):
    """One's own passages may have them or not, each for itself."""
    arm = ARMS[1]
    step, _ = first_night(walked, arm)
    stint = walked.stint(arm)
    whole, bare, none = (
        step["morning"]["rephrased"],
        [[[], *own[1:]] for own in step["morning"]["rephrased"]],
        [[[] for _ in own] for own in step["morning"]["rephrased"]],
    )

    def told(rephrased):
        morning = {**step["morning"], "rephrased": rephrased}
        return deploy_table.report(
            {**step, "morning": morning}, stint.setting.halves, stint.streams, 1
        ).get("rephrased")

    parts = [own[1:2] for own in stint.setting.halves]
    second = [
        np.mean([own[1][i] for i in half.reporting])
        for own, (half,) in zip(whole, parts, strict=True)
    ]
    assert told(bare) == pytest.approx(np.mean(second))
    assert told(none) is None and told(whole) is not None


# Killed


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if "seconds" not in k}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def test_a_run_killed_between_any_units_comes_to_the_same(
    walked, model, tmp_path, monkeypatch
):
    """Once before an entry of the journal, and once before each checkpoint."""
    struck, put, save = set(), Journal.put, checkpoint.save

    def strike(name):
        # Of the row with a gate its trainings will do.
        if name not in struck and ("gate" not in name or "adapt" in name):
            struck.add(name)
            raise KeyboardInterrupt

    def putting(self, key, value):
        strike(key)
        put(self, key, value)

    def saving(folder, step, *args):
        strike(f"checkpoint {folder.name}/{step}")
        save(folder, step, *args)

    monkeypatch.setattr(Journal, "put", putting)
    monkeypatch.setattr(checkpoint, "save", saving)
    workdir = tmp_path / "killed"
    for _ in range(60):
        try:
            again = deploy_runs.Walked(model, workdir, arms=ARMS)
            break
        except KeyboardInterrupt:
            continue
    assert len(struck) == len(walked.journal) - 2 * 4 + 2
    assert without_times(again.summary) == without_times(walked.summary)
    assert without_times(again.journal) == without_times(walked.journal)
    for arm in ARMS[1:]:
        like = walked.stint(arm).setting.block
        for run in (walked, again):
            assert (run.checkpoints(arm)).is_dir()
        same(
            blocks(walked.checkpoints(arm), 2, like),
            blocks(again.checkpoints(arm), 2, like),
        )
    name = "sessions.jsonl"
    assert (workdir / name).read_text() == (walked.workdir / name).read_text()
