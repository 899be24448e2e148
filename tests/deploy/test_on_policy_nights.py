"""Nights on a model's own answers, in waves on top of what it has learned."""

import dataclasses

import deploy_runs
import jax
import numpy as np
import pytest
import tiny_model
import trainings

from seal_jax.continual import step as continual_step
from seal_jax.deploy import days, jobs, night
from seal_jax.generation import policies
from seal_jax.models import lora
from seal_jax.rounds import grading, practice, trials
from seal_jax.runtime import checkpoint, prng
from seal_jax.runtime.journal import Journal
from seal_jax.tasks import quiz, self_edit
from seal_jax.tasks.base import Edit
from seal_jax.training import packed

ARMS = ("distill+merge", "on_policy", "on_policy+replay+gate", "on_policy+dream+keep")
PLAIN, REPLAY, KEEP = ARMS[1:]
WAVES = {
    "inner__epochs": 3,
    "inner__teach__waves": 2,
    "inner__teach__divergence": "reverse",
    # The same room for all, so that arms share a program.
    "inner__teach__tokens": 48,
    # One rate for all rules, so that they can be one.
    "inner__teach__rates__distill": 0.05,
    "inner__teach__rates__on_policy": 0.05,
    "retain__replay": 3,
    "retain__gate_budget": 1.0,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def walk(model, tmp_path_factory):
    """`walk(**changes)` walks a run in a fresh folder, or in `workdir`."""

    def walk(workdir=None, arms=ARMS, **changes):
        folder = workdir or tmp_path_factory.mktemp("run") / "run"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(grading, "scorer", lambda cfg, workdir: tiny_model.toss)
            return deploy_runs.Walked(model, folder, arms=arms, **WAVES | changes)

    return walk


@pytest.fixture(scope="module")
def walked(walk):
    return walk()


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def block(run, arm, t):
    like = run.stint(arm).setting.block
    return checkpoint.restore(run.checkpoints(arm), t, like)[0]


def steps(run, arm, until):
    """The days of an arm before night `until`."""
    return [
        {
            **{unit: run.unit(arm, t, unit) for unit in ("day", "write", "teach")},
            "night": run.unit(arm, t, "adapt"),
            "morning": run.unit(arm, t, "ask"),
        }
        for t in range(1, until)
    ]


def stack_before(run, arm, t):
    setting = run.stint(arm).setting
    stack = setting.empty
    for night_ in range(1, t):
        stack = setting.written(stack, block(run, arm, night_), night_)
    return stack


def again(run, arm, t, teach=None, **changes):
    """Night t once more; its block and entry, and who was asked what between waves.

    `teach`: in place of what was taught; `changes`: of the stint.
    """
    stint, heard = run.stint(arm), []
    stint = dataclasses.replace(stint, **changes)
    real = policies.answer

    def answer(policy, adapters, prompts, keys_A, decoding, **more):
        texts = real(policy, adapters, prompts, keys_A, decoding, **more)
        heard.append((adapters, prompts, texts, decoding))
        return texts

    now = {unit: run.unit(arm, t, unit) for unit in ("write", "teach")}
    now["teach"] = teach or now["teach"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(practice.policies, "answer", answer)
        patch.setattr(continual_step, "decide", _all)
        found = night.train(
            stint, stack_before(run, arm, t), t, steps(run, arm, t), now
        )
    return *found, heard


def _all(setting, stack, candidates, t, before):
    """Commits what there is and asks nobody, who would be heard, too."""
    count = len(setting.sequences)
    scales = candidates.usable.astype(float).tolist()
    return continual_step.Commit([0] * count, [], scales, [[]] * count)


# What a night is


def test_a_night_is_the_loop_on_weights_that_all_nights_before_are_merged_into(walked):
    """By hand: ask the merged model with the adapter, train, ask again."""
    stint, t = walked.stint(PLAIN), 2
    cfg = dataclasses.replace(stint.exp.night, teacher="previous")
    exp = dataclasses.replace(stint.exp, night=cfg, arms=(PLAIN,))
    made, entry, heard = again(walked, PLAIN, t, exp=exp)
    setting, task = stint.setting, stint.setting.task
    drawn = dataclasses.replace(exp.answer, temperature=exp.inner.teach.temperature)
    plain = dataclasses.replace(
        setting.engine, frozen_rank=0, frozen_rows=0, pool=1, resumes=True
    )
    for s in range(2):
        below = lora.select(block(walked, PLAIN, 1), s)
        assert max(float(np.abs(x).max()) for x in jax.tree.leaves(below)) > 0.01
        merged = lora.merge(walked.base.params, below)
        policy = dataclasses.replace(walked.base, params=merged)
        about = [session.context for session in stint.sessions(t)[s]]
        prompts = [
            policy.turn(self_edit.answer_prompt(task.answer_template, p, q.question))
            for p in about
            for q in p.questions
        ]
        adapters = slots = None
        for wave, span in enumerate([(0, 1), (1, 3)]):
            key = prng.fold(setting.run.key, [trials.PRACTICE], [wave], [t], [s])
            (texts,) = policies.answer(policy, adapters, [prompts], key, drawn)
            assert heard[wave][1][s] == prompts and heard[wave][2][s] == texts
            rest = iter(texts)
            lines = []
            for p in about:
                pairs = [(q.question, quiz.first_line(next(rest))) for q in p.questions]
                edit = Edit(0, 0, "", "", pairs=tuple(pairs))
                lines.append(task.under("distill").job(p, edit, ()))
            whole = dataclasses.replace(
                lines[0],
                lines=tuple(x for job in lines for x in job.lines),
                given=tuple(x for job in lines for x in job.given),
                taught=tuple(x for job in lines for x in job.taught),
                seed=(exp.seed, trials.ADAPT, t, s, 0),
                span=span,
            )
            trained = packed.train(
                merged,
                [whole],
                prng.fold(setting.run.key, [trials.ADAPT], [t], [s], [0]),
                arch=policy.arch,
                cfg=plain,
                eos=policy.eos,
                start=slots,
            )
            adapters, slots = trained.adapters, trained.slots
        trainings.assert_alike(lora.select(made, s), lora.select(adapters, 0))
        assert entry["losses"][s] == pytest.approx(float(trained.loss_A[0]), rel=1e-3)


def test_students_are_asked_without_the_context_and_adapters_change_what_they_say(
    walked,
):
    stint = walked.stint(PLAIN)
    for t in (1, 2):
        made, _, heard = again(walked, PLAIN, t)
        same(made, block(walked, PLAIN, t))
        assert len(heard) == 2
        asked = [
            [q.question for session in own for q in session.context.questions]
            for own in stint.sessions(t)
        ]
        for _, prompts, _, decoding in heard:
            assert decoding.temperature == stint.exp.inner.teach.temperature == 1.0
            for s, own in enumerate(stint.sessions(t)):
                assert len(prompts[s]) == len(asked[s]) == 8
                for prompt, question in zip(prompts[s], asked[s], strict=True):
                    assert question in prompt
                    assert not any(x.context.text in prompt for x in own)
        (before, _, first, _), (after, _, second, _) = heard
        assert first != second
        # The stack alone, then with the adapter in its block.
        rank, at = stint.exp.inner.lora.rank, (t - 1) * stint.exp.inner.lora.rank
        for bare, whole in zip(*map(jax.tree.leaves, (before, after)), strict=True):
            np.testing.assert_array_equal(bare[:2, :at], whole[:2, :at])
            assert not np.asarray(bare[:2, at : at + rank]).any()
            assert np.asarray(whole[:2, at : at + rank]).any()


def test_one_wave_of_the_days_answers_is_distillation(walk, monkeypatch):
    """Bit for bit, given the answers; with the answers of the day and of its own."""
    run = walk(arms=ARMS[:2], inner__teach__waves=1)
    arm, t = ARMS[0], 2
    taught = run.unit(arm, t, "teach")["logged"]
    monkeypatch.setattr(
        practice.policies,
        "answer",
        lambda policy, adapters, prompts, keys, decoding: [
            [answer for pairs in own for _, answer in pairs] for own in taught
        ],
    )
    other = run.stint(PLAIN)
    now = {unit: run.unit(arm, t, unit) for unit in ("write", "teach")}
    stack, before = stack_before(run, arm, t), steps(run, arm, t)
    made, entry = night.train(other, stack, t, before, now)
    same(made, block(run, arm, t))
    theirs = run.unit(arm, t, "adapt")
    for key in ("losses", "tokens", "teacher_tokens", "cut", "adapters"):
        assert entry[key] == theirs[key]
    assert "practice" in entry and "practice" not in theirs
    # What a night draws of itself is another thing.
    own = block(run, PLAIN, t)
    pairs = zip(*map(jax.tree.leaves, (own, made)), strict=True)
    assert any((a != b).any() for a, b in pairs)


def test_replayed_questions_are_answered_anew_and_kept_apart_from_the_days(walked):
    """Of night 1 three lines come again, the same in all waves."""
    t, stint = 2, walked.stint(REPLAY)
    _, entry, heard = again(walked, REPLAY, t)
    (waves,) = entry["practice"]
    assert [told["answers"] for told in waves] == [2 * (8 + 3)] * 2
    first = [session.context for session in stint.sessions(1)[0]]
    earlier = {q.question for p in first for q in p.questions}
    replayed = [prompts[0][8:] for _, prompts, _, _ in heard]
    assert replayed[0] == replayed[1] and len(set(replayed[0])) == 3
    assert all(any(q in prompt for q in earlier) for prompt in replayed[0])
    # The lines that train are those prompts with what was said last, in this order.
    before = steps(walked, REPLAY, t)
    now = {unit: walked.unit(REPLAY, t, unit) for unit in ("write", "teach")}
    own = jobs.lessons_of(stint, t, now, 0)
    what = {0: jobs.tonight(stint, 0, t, own, before)}
    assert jobs.job(stint, 0, t, what[0]).cut == ()
    stack = stack_before(walked, REPLAY, t)
    waves = jobs.waves(stint, stack, t, what, lambda wave, told: None)
    (job,) = waves.jobs(0, range(1), None)
    asked, said = heard[0][1][0], heard[0][2][0]
    encoder = walked.base
    assert job.lines == tuple(
        (*encoder.sequence(prompt), *encoder.encode(quiz.first_line(answer)))
        for prompt, answer in zip(asked, said, strict=True)
    )
    assert len(job.taught) == len(job.lines) and all(job.taught)
    texts = [p.text for p in first] + [x.context.text for x in stint.sessions(t)[0]]
    for one, prompt in zip(job.taught, asked, strict=True):
        read = policies.hf.decode(encoder.tokenizer, one.ids[: one.given])
        assert sum(text in read for text in texts) == 1
        assert not any(text in prompt for text in texts)


def test_dreams_are_practised_too_and_kept_adapters_lie_on_the_base(walked):
    stint = walked.stint(KEEP)
    assert walked.row(KEEP)["costs"]["adapters"] == [2, 2]
    for t in (1, 2):
        _, entry, heard = again(walked, KEEP, t)
        dreams = walked.unit(KEEP, t, "teach")["dreams"]
        questions = [q for own in dreams for pairs in own for q, _ in pairs]
        (waves,) = entry["practice"]
        assert waves[0]["answers"] == 2 * 8 + len(questions)
        prompts = [p for own in heard[0][1] for p in own]
        assert all(any(q in prompt for prompt in prompts) for q in questions)
        assert heard[0][0] is None
        ranks = {leaf.shape[1] for leaf in jax.tree.leaves(heard[1][0])}
        assert ranks == {stint.exp.inner.lora.rank}


def test_a_context_told_besides_is_no_question(walk):
    """`inner.teach.passage_line`: learned by every wave, asked of nobody."""
    arms = (PLAIN, REPLAY)
    run = walk(arms=arms, inner__teach__passage_line=True)
    stint, t = run.stint(REPLAY), 2
    _, entry, heard = again(run, REPLAY, t)
    now = {unit: run.unit(REPLAY, t, unit) for unit in ("write", "teach")}
    before, asked = steps(run, REPLAY, t), 0
    for s in range(2):
        own = jobs.lessons_of(stint, t, now, s)
        what = jobs.tonight(stint, s, t, own, before)
        assert len(what.again) == 3
        waves = jobs.waves(stint, stack_before(run, REPLAY, t), t, {s: what}, _nobody)
        (job,) = waves.jobs(0, range(1), None)
        assert len(job.lines) == 8 + 2 + 3
        told = [one is None for one in job.taught]
        # Behind the four questions of each session its context.
        assert [i for i in range(10) if told[i]] == [4, 9]
        again_ = [i % 5 == 4 for i in what.again]
        assert told[10:] == again_
        assert len(heard[0][1][s]) == told.count(False)
        asked += told.count(False)
    assert entry["practice"][0][1]["answers"] == asked


def _nobody(wave, told):
    pass


# Alone, killed, idle


def test_a_stream_learns_as_it_does_alone(walked):
    """What another has to learn changes no word, and no weight but by rounding."""
    t = 2
    made, _, heard = again(walked, PLAIN, t)
    for s, other in ((0, 1), (1, 0)):
        teach = walked.unit(PLAIN, t, "teach")
        logged = [own if i == s else [[], []] for i, own in enumerate(teach["logged"])]
        alone, entry, mine = again(walked, PLAIN, t, teach=teach | {"logged": logged})
        for ours, theirs in zip(mine, heard, strict=True):
            assert [each[0] for each in ours[1:3]] == [each[s] for each in theirs[1:3]]
        trainings.assert_alike(lora.select(alone, s), lora.select(made, s))
        # Who had nothing to learn learned nothing.
        idle = jax.tree.leaves(lora.select(alone, other))
        assert not any(np.asarray(leaf).any() for leaf in idle)
        assert entry["scales"] == [float(i == s) for i in range(2)]
        assert [told["answers"] for told in entry["practice"][0]] == [8, 8]


def test_a_night_without_questions_is_no_wave(walked):
    teach = walked.unit(PLAIN, 2, "teach") | {"logged": [[[], []], [[], []]]}
    made, entry, heard = again(walked, PLAIN, 2, teach=teach)
    same(made, walked.stint(PLAIN).setting.nothing)
    assert heard == [] and "practice" not in entry
    assert entry["adapters"] == entry["tokens"] == entry["teacher_tokens"] == 0


def test_a_run_killed_between_and_in_waves_comes_to_the_same(
    walked, walk, tmp_path, monkeypatch
):
    """Once before each wave's answers, training, and note, and before what is kept."""
    struck, put, save = set(), Journal.put, checkpoint.save
    train, answer, note = packed.train, policies.answer, practice.measured
    nights = []

    def strike(name):
        if name not in struck:
            struck.add(name)
            raise KeyboardInterrupt

    def at(name):
        if nights:
            strike((nights[-1], len(done), name))

    done = []

    def training(*args, **more):
        at("train")
        done.append("wave")
        return train(*args, **more)

    def answering(*args, **more):
        at("answer")
        return answer(*args, **more)

    def noting(*args):
        at("note")
        return note(*args)

    def learning(stint, stack, t, before, now):
        nights.append(f"{stint.setting.arm}/{t}")
        done.clear()
        try:
            return learn(stint, stack, t, before, now)
        finally:
            nights.clear()

    def putting(self, key, value):
        if key.endswith("/adapt"):
            strike(key)
        put(self, key, value)

    def saving(folder, step, *args):
        strike(f"checkpoint {folder.name}/{step}")
        save(folder, step, *args)

    learn = night.train
    arms = (ARMS[0], PLAIN)
    monkeypatch.setattr(Journal, "put", putting)
    monkeypatch.setattr(checkpoint, "save", saving)
    monkeypatch.setattr(packed, "train", training)
    monkeypatch.setattr(policies, "answer", answering)
    monkeypatch.setattr(practice, "measured", noting)
    monkeypatch.setattr(days.night, "train", learning)
    for _ in range(40):
        try:
            run = walk(tmp_path / "killed", arms=arms)
            break
        except KeyboardInterrupt:
            continue
    in_waves = {name for name in struck if isinstance(name, tuple)}
    for t in (1, 2):
        mine = {name[1:] for name in in_waves if name[0] == f"{PLAIN}/{t}"}
        kinds = ("answer", "note", "train")
        assert mine == {(wave, kind) for wave in (0, 1) for kind in kinds}
    for arm in arms:
        for t in (1, 2):
            same(block(walked, arm, t), block(run, arm, t))
            for unit in ("adapt", "ask"):
                ours, theirs = (dict(x.unit(arm, t, unit)) for x in (walked, run))
                del ours["seconds"], theirs["seconds"]
                assert ours == theirs


# What is told


def test_the_journal_and_the_log_tell_of_each_wave(walked):
    for arm in ARMS[1:]:
        for t in (1, 2):
            (waves,) = walked.unit(arm, t, "adapt")["practice"]
            assert len(waves) == 2
            for told in waves:
                assert told["drawn"] >= told["answers"] * max(1, told["tokens"])
                assert 0 < told["distinct"] <= 1 and told["surprise"] > 0
            lines = [x for x in walked.said if x.startswith(f"{arm}: night {t}: wave")]
            # Tests that train a night again are heard behind.
            assert [line.split(":")[2] for line in lines[:2]] == [" wave 1", " wave 2"]
    assert "practice" not in walked.unit(ARMS[0], 1, "adapt")
