"""Sequences of passages on a very small model: learned, kept, asked, resumed."""

import dataclasses
import itertools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_model

from seal_jax.analysis import forgetting
from seal_jax.continual import ask as continual_ask
from seal_jax.continual import files as continual_files
from seal_jax.continual import halves
from seal_jax.continual import sequences as continual
from seal_jax.continual import stack as continual_stack
from seal_jax.continual import step as continual_step
from seal_jax.continual import table as continual_table
from seal_jax.continual.settings import Continual
from seal_jax.generation import policies
from seal_jax.models import decoder, key_ranges, lora
from seal_jax.rounds import grading, scoring, trials
from seal_jax.runtime import config_rules, metrics
from seal_jax.runtime.journal import Journal
from seal_jax.tasks import self_edit, world
from seal_jax.tasks.passage import Passage, Question
from seal_jax.training import capacity

ARMS = ("merge", "replay+gate", "keep", "kl+orthogonal+penalty")
CHANGES = {
    "sequence.count": 2,
    "sequence.passages": 3,
    "sequence.probes": 2,
    "propose.min_tokens": 1,
    "propose.max_tokens": 8,
    "propose.prompt_multiple": 112,
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
    "retain.candidates": 2,
    "retain.orthogonal": 0.1,
    "retain.gate_budget": 0.0,
    "arms": ARMS,
}


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(autouse=True)
def coin(monkeypatch):
    monkeypatch.setattr(grading, "scorer", lambda cfg, workdir: tiny_model.toss)


class Walked:
    """A run of `continual.walk`, as the shell does it."""

    def __init__(self, model_path, workdir, stop_after=None, **changes):
        config = tiny_model.load_config("continual", "debug")
        config.model.path = str(model_path)
        config.update_from_flattened_dict(CHANGES | changes)
        exp = config_rules.build(Continual, config.to_dict())
        self.exp, self.workdir, self.said = exp, workdir, []
        self.sequences, self.probes = continual.load(exp)
        blank = policies.describe(exp.model)
        passages = [p for sequence in self.sequences for p in sequence]
        task = continual.make(exp, blank, passages, self.probes)
        task = grading.connect(exp, task, workdir)
        cfg, _ = capacity.choose(
            blank.arch,
            exp.inner,
            limit=2**40,
            adapters=exp.adapters,
            options=exp.engine,
        )
        self.base = policies.load(exp.model, blank, seed=exp.seed)
        workdir.mkdir(parents=True, exist_ok=True)

        def say(line):
            self.said.append(line)
            if stop_after and line.startswith(stop_after):
                raise KeyboardInterrupt

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
                say=say,
            )
            self.summary = continual.walk(
                self.state, self.base, self.sequences, self.probes, workdir
            )
            keys = journal.keys()
            self.journal = {key: journal.get(key) for key in keys}

    def setting(self, arm):
        return continual_stack.Setting(
            self.state, self.base, arm, self.sequences, self.probes, ()
        )

    def steps(self, arm):
        count = self.exp.sequence.passages
        return [self.journal[f"continual/{arm}/{t}"] for t in range(1, count + 1)]


@pytest.fixture(scope="module")
def walked(model_path, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grading, "scorer", lambda cfg, workdir: tiny_model.toss)
        return Walked(model_path, tmp_path_factory.mktemp("runs") / "whole")


# The stack


def test_merging_all_blocks_gives_the_logits_of_the_stack():
    arch = decoder.Arch("qwen2", 50, 16, 2, 2, 1, 8, 24, 64, tied=False)
    params = decoder.init_params(jax.random.key(0), arch)
    stack = lora.empty(
        arch, targets=("q_proj", "up_proj"), rank=6, adapters=1, dtype="float32"
    )
    merged = params
    for t in range(3):
        keys = iter(jax.random.split(jax.random.key(t + 1), 9))
        block = lora.empty(
            arch, targets=("q_proj", "up_proj"), rank=2, adapters=1, dtype="float32"
        )
        block = jax.tree.map(
            lambda x, k=keys: jax.random.normal(next(k), x.shape), block
        )
        stack = lora.write(stack, block, 2 * t)
        merged = lora.merge(merged, lora.select(block, 0))
    tokens_BT = jnp.arange(10).reshape(1, 10)
    positions_BT = jnp.arange(10).reshape(1, 10)
    ranges = key_ranges.causal(jnp.ones((1, 10), bool))

    def logits(params, delta):
        hidden, _ = decoder.hidden(params, delta, arch, tokens_BT, positions_BT, ranges)
        return decoder.logits(params, arch, hidden)

    one, other = logits(params, lora.select(stack, 0)), logits(merged, None)
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * float(abs(one).max()))
    assert float(jnp.abs(one - logits(params, None)).max()) > 0.1


def test_a_weakened_block_shrinks_with_its_scale_and_a_rejected_one_is_gone():
    ones = {
        "layers_0": {"q_proj": {"a": jnp.ones((3, 2, 4)), "b": jnp.ones((3, 2, 5))}}
    }
    ones["layers_0"]["q_proj"]["b"] = ones["layers_0"]["q_proj"]["b"].at[2].set(jnp.nan)
    got = continual_stack.weakened(ones, jnp.array([1.0, 0.25, 0.0]))["layers_0"][
        "q_proj"
    ]
    assert got["a"][:, 0, 0].tolist() == [1.0, 1.0, 0.0]
    assert got["b"][:, 0, 0].tolist() == [1.0, 0.25, 0.0]


def test_kept_blocks_become_adapters_in_order_and_the_base_is_last():
    stack = {"layers_0": {"q_proj": {"a": jnp.arange(2.0 * 6 * 3).reshape(2, 6, 3)}}}
    got = continual_stack.kept_apart(stack, rank=2)["layers_0"]["q_proj"]["a"]
    assert got.shape == (2 * 3 + 1, 2, 3)
    for s in range(2):
        for j in range(3):
            block = stack["layers_0"]["q_proj"]["a"][s, 2 * j : 2 * j + 2]
            np.testing.assert_array_equal(got[3 * s + j], block)
    assert not got[-1].any()


# What is learned and asked


def passages():
    return world.sequences(
        "heldout", seed=3, start=0, count=12, length=8, forward_share=0.2
    )


def test_no_resident_occurs_twice_in_a_sequence_and_no_passage_in_two():
    names = [n for kind in ("person", "firm") for n in world.residents("heldout", kind)]
    sequences = passages()
    assert [len(sequence) for sequence in sequences] == [8] * 12
    ids = [p.id for sequence in sequences for p in sequence]
    assert len(ids) == len(set(ids))
    for sequence in sequences:
        residents = [name for p in sequence for name in names if name in p.text]
        assert len(residents) == 2 * 8 == len(set(residents))
    assert sequences == passages()


def test_sequences_are_the_worlds_own_passages_and_leave_few_out():
    ids = [int(p.id.split("-")[-1]) for sequence in passages() for p in sequence]
    drawn = world.passages("heldout", seed=3, start=0, count=110, forward_share=0.2)
    assert {p for sequence in passages() for p in sequence} <= set(drawn)
    assert max(ids) < 110


def test_a_sequence_longer_than_the_group_can_fill_is_refused():
    with pytest.raises(ValueError, match=r"length=300 .* at most half"):
        world.sequences(
            "heldout", seed=0, start=0, count=1, length=300, forward_share=0.2
        )


def test_probes_ask_for_what_pretraining_knows():
    facts = {
        fact.question(style): (resident.title, fact.value)
        for resident in world.known_residents()
        if resident.asked
        for fact in resident.facts
        for style in (0, 1)
    }
    probes = world.known_passages(seed=0, start=0, count=20)
    assert len({p.id for p in probes}) == 20
    for probe in probes:
        assert len(probe.questions) in (3, 5) and not probe.text
        for q in probe.questions:
            assert facts[q.question] == (probe.title, q.answer)
    assert world.known_passages(seed=0, start=5, count=3) == probes[5:8]
    with pytest.raises(ValueError, match="at most the"):
        world.known_passages(seed=0, start=0, count=1000)


def test_squad_sequences_and_probes_are_apart(tmp_path):
    rows = [
        {
            "title": f"T{i}",
            "context": f"Text {i}.",
            "questions": [{"question": "Q?", "answer": "A"}],
        }
        for i in range(20)
    ]
    path = tmp_path / "some.json"
    path.write_text(json.dumps(rows))
    config = tiny_model.load_config("continual", None)
    config.task.train = config.task.heldout = str(path)
    config.sequence.count, config.sequence.passages, config.sequence.probes = 3, 4, 5
    config.task.heldout_start = 12
    exp = config_rules.build(Continual, config.to_dict())
    sequences, probes = continual.load(exp)
    texts = [p.text for own in sequences for p in own] + [p.text for p in probes]
    assert len(texts) == 3 * 4 + 5 == len(set(texts))
    config.task.heldout_start = 11
    exp = config_rules.build(Continual, config.to_dict())
    with pytest.raises(ValueError, match=r"1 probes are in a sequence too"):
        continual.load(exp)
    of_20 = r"start=\d+ \+ count=\d+ passages must be at most the 20"
    config.task.heldout_start = 16
    exp = config_rules.build(Continual, config.to_dict())
    with pytest.raises(ValueError, match=rf"task.heldout, .*probes=5: {of_20}"):
        continual.load(exp)
    config.sequence.count = 6
    exp = config_rules.build(Continual, config.to_dict())
    with pytest.raises(ValueError, match=rf"count=6 of .*passages=4: {of_20}"):
        continual.load(exp)


@pytest.mark.parametrize(
    "key, message",
    [
        ("sequence.probes", r"^sequence\.probes=999: .* ask for fewer$"),
        ("sequence.passages", r"^sequence\.passages=999: .* use \d+ passages$"),
    ],
)
def test_what_the_world_does_not_hold_is_refused_by_its_key(key, message):
    config = tiny_model.load_config("continual", "debug")
    config.update_from_flattened_dict({key: 999})
    exp = config_rules.build(Continual, config.to_dict())
    with pytest.raises(ValueError, match=message):
        continual.load(exp)


# A whole run


def test_the_stack_answers_like_weights_that_were_merged_step_by_step(walked):
    steps = walked.steps("merge")
    for s, sequence in enumerate(walked.sequences):
        merged = walked.base
        for t, entry in enumerate(steps, start=1):
            like = walked.setting("merge").block
            folder = walked.workdir / "checkpoints" / "continual" / "merge"
            block, _ = continual.checkpoint.restore(folder, t, like)
            merged = merged.merged(lora.select(block, s))
            about = [*sequence[:t], *walked.probes]
            prompts = [q for p in about for q in walked.state.task.prompts(p)]
            keys = jax.random.split(jax.random.key(0), 1)
            (flat,) = policies.answer(merged, None, [prompts], keys, walked.exp.answer)
            assert [a for group in entry["answers"][s] for a in group] == flat


def test_each_step_trains_the_jobs_own_lines(walked):
    task = walked.state.task
    for arm in ARMS:
        for t, entry in enumerate(walked.steps(arm)):
            for s, sequence in enumerate(walked.sequences):
                text = entry["texts"][s][entry["chosen"][s]]
                lines = self_edit.train_lines(
                    text, sequence[t], rule=walked.exp.edit.split, quirks="fixed"
                )
                assert entry["lines"][s] == (lines if entry["scales"][s] else [])
                assert task.prompts(sequence[t])  # closed-book, so not among the lines


def test_arms_begin_alike_and_part_when_their_controls_act(walked):
    first = {arm: walked.steps(arm)[0]["texts"] for arm in ARMS}
    for s in range(2):
        begun = {first[arm][s][0] for arm in ARMS}
        assert len(begun) == 1
    # Nothing is there yet to replay or to forget.
    merge, gated = (walked.steps(arm)[0] for arm in ("merge", "replay+gate"))
    assert merge["losses"] == gated["losses"] and merge["answers"] == gated["answers"]
    assert (
        walked.steps("merge")[1]["losses"] != walked.steps("replay+gate")[1]["losses"]
    )


def chosen_by(walked, s, scores):
    """Scores of sequence s on the questions that choose."""
    divided = walked.setting("merge").halves[s]
    return halves.of_scores(scores, divided, "choosing")


def test_what_chooses_is_in_no_row_and_all_rows_report_the_same(walked):
    divided = walked.setting("merge").halves
    flat = [half for parts in divided for half in parts]
    assert all(half.choosing and half.reporting for half in flat)
    assert walked.summary["questions"] == {
        "choosing": sum(len(half.choosing) for half in flat),
        "reporting": sum(len(half.reporting) for half in flat),
    }
    for arm, row in zip(ARMS, walked.summary["arms"], strict=True):
        last = walked.steps(arm)[-1]["scores"]
        shown = [
            [
                np.mean([scores[t][q] for q in half.reporting])
                for t, half in enumerate(p)
            ]
            for scores, p in zip(last, divided, strict=True)
        ]
        assert row["final"]["mean"] == pytest.approx(np.mean(shown))


def test_where_no_arm_chooses_all_questions_report(walked):
    exp = dataclasses.replace(walked.exp, arms=("merge", "replay", "keep"))
    run = dataclasses.replace(walked.state, exp=exp)
    setting = dataclasses.replace(walked.setting("merge"), run=run)
    for sequence, parts in zip(walked.sequences, setting.halves, strict=True):
        for passage, half in zip(sequence, parts, strict=True):
            assert half.choosing == ()
            assert half.reporting == tuple(range(len(passage.questions)))


def test_a_passage_of_one_question_only_reports_and_takes_the_first_edit(
    walked, monkeypatch
):
    setting = walked.setting("penalty")
    single = [
        [dataclasses.replace(p, questions=p.questions[:1]) for p in sequence]
        for sequence in walked.sequences
    ]
    setting = dataclasses.replace(setting, sequences=single)
    candidates = continual_step.train(
        setting, setting.empty, [["a b", "c d"]] * 2, 1, [[], []]
    )
    commit = continual_step.decide(setting, setting.empty, candidates, 1, [[], []])
    assert commit.chosen == [0, 0] and commit.rewards == [[None, None]] * 2


def test_the_gate_keeps_to_its_budget(walked):
    steps = walked.steps("replay+gate")
    tried = [gates for entry in steps for gates in entry["gates"]]
    assert any(len(gates) > 1 for gates in tried), "the budget was never reached"
    for entry in steps:
        for scale, gates in zip(entry["scales"], entry["gates"], strict=True):
            within = [a for a, lost in gates if lost <= walked.exp.retain.gate_budget]
            assert scale == max(within, default=0.0)
    # What the gate measured at the scale it took is what the next row shows.
    for before, entry in itertools.pairwise(steps):
        for s, gates in enumerate(entry["gates"]):
            lost = continual_ask.lost(
                chosen_by(walked, s, before["scores"][s]),
                chosen_by(walked, s, entry["scores"][s][:-1]),
            )
            expected = dict(map(tuple, gates)).get(entry["scales"][s], 0.0)
            assert lost == pytest.approx(expected)


def test_penalised_candidates_are_chosen_by_acquisition_and_forgetting(walked):
    for entry in walked.steps("kl+orthogonal+penalty"):
        for s, rewards in enumerate(entry["rewards"]):
            assert len(rewards) == 2
            assert rewards[entry["chosen"][s]] == max(rewards)
    first = walked.steps("kl+orthogonal+penalty")[0]
    for s, rewards in enumerate(first["rewards"]):
        (by,) = chosen_by(walked, s, first["scores"][s])
        acquired = scoring.mean(by)
        assert rewards[first["chosen"][s]] == pytest.approx(acquired)


def test_a_probe_is_asked_after_each_passage_and_never_decides(walked):
    questions = [len(p.questions) for p in walked.probes]
    for arm in ARMS:
        for entry in walked.steps(arm):
            for scores in entry["general"]:
                assert list(map(len, scores)) == questions


def test_the_matrices_are_in_the_references_layout(walked):
    for arm, row in zip(ARMS, walked.summary["arms"], strict=True):
        folder = walked.workdir / "continual" / arm
        runs = continual_files.read(folder)
        assert len(runs) == 2 and {m.passages for m in runs} == {3}
        pooled = forgetting.pool(runs)
        for mine, theirs in zip(row["matrix"]["means"], pooled.means, strict=True):
            assert mine == pytest.approx(theirs)
        for mine, theirs in zip(
            row["matrix"]["deviations"], pooled.deviations, strict=True
        ):
            assert mine == pytest.approx(theirs)
        assert (folder / continual_files.OVERALL_NAME).is_file()
        fresh = forgetting.estimates(runs, lambda m: [np.mean(forgetting.fresh(m))])
        assert (row["learned"]["mean"], row["learned"]["se"]) == pytest.approx(fresh[0])


def test_summary_counts_what_was_done(walked):
    assert walked.summary["kind"] == "continual"
    by_name = {row["name"]: row for row in walked.summary["arms"]}
    assert by_name["merge"]["adapters"] == 2 * 3
    assert by_name["kl+orthogonal+penalty"]["adapters"] == 2 * 3 * 2
    assert by_name["merge"]["committed"] == 1.0 == by_name["merge"]["scale"]
    questions = sum(
        len(p.questions)
        for sequence in walked.sequences
        for t in range(4)
        for p in sequence[:t]
    )
    questions += 3 * 2 * sum(len(p.questions) for p in walked.probes)
    assert by_name["merge"]["answers"] == questions
    for row in walked.summary["arms"]:
        assert row["seconds"] > 0 and len(row["general"]) == 4


def test_pairs_are_differences_over_sequences(walked):
    rows = {(p["what"], p["a"], p["b"]): p for p in walked.summary["paired"]}
    others = set(ARMS) - {"merge"}
    assert {key[1:] for key in rows if key[0] == "final"} == {
        *((arm, "un-edited") for arm in ARMS),
        *((arm, "merge") for arm in others),
    }
    base = [np.mean(means) for means in map(continual_table.means, _scores(walked))]
    runs = continual_files.read(walked.workdir / "continual" / "keep")
    final = [np.mean(forgetting.final(m)) for m in runs]
    diff = np.subtract(final, base).mean()
    assert rows["final", "keep", "un-edited"]["diff"] == pytest.approx(diff)


def _scores(walked):
    before = walked.journal["continual/base"]
    return halves.reported_base(before, walked.setting("merge").halves)["scores"]


def test_a_sequence_trains_on_its_own_stack_and_on_no_other(walked):
    setting = walked.setting("merge")
    texts = [entry["texts"] for entry in walked.steps("merge")]
    candidates = continual_step.train(setting, setting.empty, texts[0], 1, [[], []])
    commit = continual_step.Commit([0, 0], [], [1.0, 1.0], [])
    block = continual_step.block(candidates, commit.chosen, commit.scales)
    stack = setting.written(setting.empty, block, 1)
    both = continual_step.train(setting, stack, texts[1], 2, [[], []])
    assert both.losses == pytest.approx(walked.steps("merge")[1]["losses"])
    # Without what the second sequence has learned, only the second trains otherwise.
    block = continual_stack.weakened(block, jnp.array([1.0, 0.0]))
    stack = setting.written(setting.empty, block, 1)
    weakened = continual_step.train(setting, stack, texts[1], 2, [[], []])
    assert weakened.losses[0] == pytest.approx(both.losses[0], rel=1e-5)
    assert abs(weakened.losses[1] - both.losses[1]) > 1e-3


def test_a_block_that_was_read_back_needs_no_programs_of_its_own(walked):
    setting = walked.setting("merge")
    folder = walked.workdir / "checkpoints" / "continual" / "merge"
    block, _ = continual.learn(setting, setting.empty, 1, [], folder)
    stack = setting.written(setting.empty, block, 1)
    bound = [x.committed for x in jax.tree.leaves([setting.empty, stack])]
    assert bound and not any(bound)


def without_times(value):
    if isinstance(value, dict):
        return {
            k: without_times(v) for k, v in value.items() if not k.endswith("seconds")
        }
    return [without_times(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("lost", ["nothing", "answers"])
def test_a_killed_run_goes_on_where_it_was(walked, tmp_path, lost, monkeypatch):
    workdir = tmp_path / "killed"
    shutil.copytree(walked.workdir, workdir)
    folder = workdir / "checkpoints" / "continual" / "merge"
    shutil.rmtree(folder / "3")
    gone = ["continual/merge/3"] + ["continual/merge/2"] * (lost == "answers")
    path = workdir / "journal.jsonl"
    rows = [line for line in path.read_text().splitlines(keepends=True)]
    path.write_text("".join(r for r in rows if json.loads(r)["key"] not in gone))
    trained = []
    real = continual_step.train
    monkeypatch.setattr(
        continual_step,
        "train",
        lambda *args, **kwargs: trained.append(1) or real(*args, **kwargs),
    )
    again = Walked(walked.exp.model.path, workdir)
    assert len(trained) == 1
    assert without_times(again.summary) == without_times(walked.summary)


# What can go wrong


def test_a_failed_adapter_is_not_committed(walked, monkeypatch):
    setting = walked.setting("merge")
    texts = [["x"], ["y"]]
    candidates = continual_step.train(setting, setting.empty, texts, 1, [[], []])
    broken = jax.tree.map(lambda x: x.at[1].set(jnp.nan), candidates.adapters)
    candidates = candidates._replace(adapters=broken, finite=np.array([True, False]))
    for arm in ("merge", "gate"):
        setting = dataclasses.replace(setting, arm=arm)
        commit = continual_step.decide(setting, setting.empty, candidates, 1, [[], []])
        assert commit.scales == [1.0, 0.0]
        block = continual_step.block(candidates, commit.chosen, commit.scales)
        assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(block))


def test_a_text_that_says_nothing_is_not_committed(walked):
    """One alone is rejected, one among others passed over; both are counted."""
    setting = walked.setting("merge")
    for texts, chosen, scales in (
        ([["---"], ["y"]], [0, 0], [0.0, 1.0]),
        ([[" ", "x"], ["1.", ""]], [1, 0], [1.0, 0.0]),
    ):
        candidates = continual_step.train(setting, setting.empty, texts, 1, [[], []])
        flat = [text for own in texts for text in own]
        assert candidates.refused.tolist() == [t not in "xy" or not t for t in flat]
        for arm in ("merge", "gate"):
            of_arm = dataclasses.replace(setting, arm=arm)
            args = (of_arm, setting.empty, candidates, 1, [[], []])
            commit = continual_step.decide(*args)
            assert (commit.chosen, commit.scales) == (chosen, scales)
    best = dataclasses.replace(setting, arm="penalty")
    commit = continual_step.decide(best, setting.empty, candidates, 1, [[], []])
    assert commit.rewards[0][0] is None and commit.rewards[1] == [None, None]
    assert commit.chosen == [1, 0] and commit.scales == [1.0, 0.0]
    assert all(row["refused"] == 0 for row in walked.summary["arms"])


@pytest.mark.parametrize("missing", [range(6), range(0, 18, 6)])
def test_missing_judgements_stop_the_step(walked, monkeypatch, missing):
    setting = walked.setting("merge")
    passage = Passage("x", "T", "", (Question("Q?", "A"),) * 6)
    groups, flat = [[passage, passage], [passage]], [["a"] * 12, ["a"] * 6]

    def score(pairs):
        count = sum(len(answers) for _, answers in pairs)
        return [None if i in missing else 1.0 for i in range(count)]

    task = dataclasses.replace(setting.task, grader=None)
    object.__setattr__(task, "score", score)
    run = dataclasses.replace(setting.run, task=task)
    setting = dataclasses.replace(setting, run=run)
    with pytest.raises(scoring.MissingJudgementsError, match="of 18 judgements"):
        continual_ask.graded(setting, groups, flat)


def test_a_row_that_learns_nothing_has_each_passage_in_view(model_path, tmp_path):
    asked = []

    def answer(policy, adapters, prompts, keys, decoding):
        asked.append(prompts[0])
        return [[f"{len(asked)} {i}" for i in range(len(prompts[0]))]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policies, "answer", answer)
        run = Walked(model_path, tmp_path / "run", arms=("in_context",))
    passages = [p for sequence in run.sequences for p in sequence]
    questions = [(p, q) for p in passages for q in p.questions]
    closed, viewed = asked
    assert len(closed) == len(viewed) + sum(len(p.questions) for p in run.probes)
    for prompt, (passage, question) in zip(viewed, questions, strict=True):
        assert passage.text in prompt and question.question in prompt
    assert not any(p.text in prompt for p in passages for prompt in closed)
    # Each passage is worth the same after every step, and the probes as before.
    (row,) = run.summary["arms"]
    means = row["matrix"]["means"]
    for t in range(1, len(means)):
        assert means[t] == means[-1][: len(means[t])]
    assert means[1:] and means[-1] != means[0]
    assert len(set(row["general"])) == 1
    assert row["adapters"] == row["committed"] == 0 and row["answers"] == len(viewed)
    assert [p["b"] for p in run.summary["paired"]] == ["un-edited"] * 2
    assert (tmp_path / "run/continual/in_context").is_dir()
