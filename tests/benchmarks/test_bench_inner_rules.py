"""The comparison of inner rules: choice of rates, figures, tables; cells made up."""

import contextlib
import importlib
import json
import types

import jax.numpy as jnp
import numpy as np
import pytest

from seal_jax.analysis import stats
from seal_jax.tasks import world
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage
from seal_jax.training.inner_rules import RULES


@pytest.fixture(scope="module")
def modules(root):
    """The benchmark's modules, which find each other as they do when run."""
    names = ("inner_rules", "rule_cells", "rule_figures", "rule_seeds")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        made = {name: importlib.import_module(name) for name in names}
        yield types.SimpleNamespace(**made)


# Quizzes


def made_seed(passages, questions=6):
    label_free = types.SimpleNamespace(questions=questions)
    exp = types.SimpleNamespace(label_free=label_free)
    return types.SimpleNamespace(run=types.SimpleNamespace(exp=exp), passages=passages)


@pytest.fixture(scope="module")
def passage():
    return world.passages("heldout", seed=3, start=0, count=1, forward_share=0.2)[0]


def test_the_facts_of_a_passage_are_those_of_its_questions(modules, passage):
    facts = modules.rule_seeds.facts(passage)
    assert [fact.value for fact in facts] == [q.answer for q in passage.questions]
    for fact, own, other in zip(
        facts, passage.questions, passage.rephrased, strict=True
    ):
        assert own.question in (fact.question(0), fact.question(1))
        assert other.question == fact.question(2)
    odd = Passage.of("t", "x", [("Who?", "he")])
    bad = types.SimpleNamespace(id="odd", rephrased=odd.questions)
    with pytest.raises(ValueError, match="passage odd: 'Who\\?' must be a question"):
        modules.rule_seeds.facts(bad)


def test_a_fact_is_asked_in_whatever_form_and_a_copy_of_the_rephrased_is_counted(
    modules, passage
):
    first, second, third = modules.rule_seeds.facts(passage)[:3]
    own = passage.questions[0].question
    other = next(q for q in map(first.question, (0, 1)) if q != own)
    # A fact in the other form, one in its own words, one in the form kept for tests.
    pairs = (
        (other.upper(), "a"),
        (passage.questions[1].question, "b"),
        (third.question(2), "c"),
    )
    text = "\n".join(f"Question: {q}\nAnswer:\n{a}" for q, a in (*pairs, ("Eh?", "d")))
    made = modules.rule_seeds.quizzes(
        made_seed([passage]), [Edit(0, 0, "", text, pairs=pairs)]
    )
    rest = [False] * (len(passage.questions) - 3)
    assert made["asked"] == [[True, True, True, *rest]]
    assert made["same_words"] == [[False, True, False, *rest]]
    assert (made["written"], made["kept"], made["copied"]) == ([4], [3], 1)
    assert second.question(2) not in text


# Figures


def test_scores_are_split_by_what_the_quiz_asked(modules):
    passages = [
        {"own": [[1.0, 0.0, 1.0]], "rephrased": [[0.0, 0.0, 1.0]], "general": [[1.0]]},
        {"own": [[0.0, 1.0, 1.0]], "rephrased": [[1.0] * 3], "general": [[0.0, 1.0]]},
    ]
    made = modules.rule_figures.single_values(
        passages, [[True, True, False], [True, True, True]]
    )
    assert made["own"] == pytest.approx([2 / 3, 2 / 3])
    assert made["rephrased"] == pytest.approx([1 / 3, 1.0])
    assert made["general"] == [1.0, 0.5]
    assert made["asked"] == pytest.approx([0.5, 2 / 3])
    assert made["unasked"] == [1.0, None]


def test_streams_are_told_right_after_each_edit_and_at_the_end(modules):
    cell = {
        "after": [[[1.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 1.0]]],
        "end": [
            {"own": [[0.0, 0.0], [1.0, 0.0]], "rephrased": [[1.0]], "general": [[0.5]]},
            {"own": [[1.0, 1.0], [1.0, 0.0]], "rephrased": [[0.0]], "general": [[1.0]]},
        ],
    }
    made = modules.rule_figures.stream_values(cell)
    assert list(made) == list(modules.rule_figures.STREAMS)
    assert list(made.values()) == [[0.75, 0.25], [0.25, 0.75], [1.0, 0.0], [0.5, 1.0]]


def test_differences_are_paired_and_their_interval_is_over_seeds(modules):
    a = [{"x": [0.5, 0.7]}, {"x": [0.9, None]}, {"x": [0.4, 0.2]}]
    b = [{"x": [0.1, 0.4]}, {"x": [0.5, 0.8]}, {"x": [0.1, 0.1]}]
    found = modules.rule_figures.differences(a, b)["x"]
    diffs = [0.4, 0.3, 0.4, 0.3, 0.1]
    assert (found["diff"], found["se"]) == pytest.approx(stats.mean_se(diffs))
    assert (found["low"], found["high"]) == pytest.approx(
        stats.student([0.35, 0.4, 0.2])
    )
    mean = modules.rule_figures.summarized(a)["x"]
    assert mean["seeds"] == pytest.approx([0.6, 0.9, 0.3])
    assert mean["mean"] == pytest.approx(0.54)


def test_rates_are_the_best_by_each_criterion_and_the_least_of_equals(modules):
    found = {
        0.03: {"own": 0.7, "general": 0.1},
        0.01: {"own": 0.7, "general": 0.5},
        0.003: {"own": 0.6, "general": 0.9},
    }
    accuracy, both = modules.rule_figures.CRITERIA
    assert modules.rule_figures.chosen(found, accuracy) == 0.01
    assert modules.rule_figures.chosen(found, both) == 0.003


# The command


class Made:
    """Stands for `rule_seeds` and `rule_cells`: a rate is best at 3e-3."""

    def __init__(self):
        self.cells = []

    @contextlib.contextmanager
    def opened(self, seed, workdir, sizes, *, say):
        teach = types.SimpleNamespace(divergence="forward", waves=5)
        inner = types.SimpleNamespace(teach=teach)
        run = types.SimpleNamespace(exp=types.SimpleNamespace(inner=inner))
        yield types.SimpleNamespace(seed=seed, run=run)

    def share(self, arm):
        own = {"quiz": 0.75, "edits": 0.5}.get(arm.rule, 0.25)
        return own if arm.rate == 3e-3 else 0.0

    def cell_single(self, seed, arm):
        self.cells.append((seed.seed, "single", arm.name))
        share = self.share(arm)
        # Two passages of two questions, of whose facts the quiz asked the first.
        own = [1.0, 2 * share - 1] if share > 0.5 else [2 * share, 0.0]
        passage = {"own": [own], "rephrased": [own], "general": [[1 - share]]}
        cost = {"tokens": 10 + seed.seed, "train_cpu_seconds": 1.0}
        if arm.waves == 10:
            cost |= {"practised_tokens": 100}
        return {"passages": [passage] * 2, "refused": 1, "failed": 0, "cost": cost}

    def cell_streams(self, seed, arm):
        self.cells.append((seed.seed, "streams", arm.name))
        share = [[self.share(arm)]]
        end = {"own": share, "rephrased": share, "general": share}
        return {"after": [share], "end": [end], "refused": 0, "failed": 0}

    def cell_quizzes(self, seed, arm):
        facts = [[True, False]] * 2
        return {
            "asked": facts,
            "same_words": [[False, False]] * 2,
            "written": [3, 3],
            "kept": [3, 2],
            "copied": 0,
        }

    def writing(self, seed, arm):
        mixed = {"mix": 2} if arm.rule == "mix" else {}
        parts = {"propose": seed.seed, "again": 3} | mixed
        tokens = sum(parts.values())
        return {"parts": parts, "written_tokens": tokens, "write_seconds": 0.5}

    def cell_base(self, seed):
        none = {"own": [[0.0]], "rephrased": [[0.0]], "general": [[1.0]]}
        return {"base": none, "in_context": none | {"general": []}}


@pytest.fixture
def made(modules, monkeypatch):
    fake = Made()
    monkeypatch.setattr(modules.rule_seeds, "opened", fake.opened)
    monkeypatch.setattr(modules.rule_seeds, "writing", fake.writing)
    for name in ("cell_single", "cell_streams", "cell_quizzes", "cell_base"):
        monkeypatch.setattr(modules.rule_cells, name, getattr(fake, name))
    monkeypatch.setattr(modules.inner_rules.common, "jax_device", lambda: "cpu-9")
    return fake


def test_rates_come_from_other_seeds_than_the_figures(modules, made, tmp_path, capsys):
    flags = ["--choose", "1", "2", "--report", "3", "4", "5", "--workdir", "x"]
    flags += [
        "--variants",
        "--also",
        "0.01",
        "0.003",
        f"--out={tmp_path / 'made.json'}",
    ]
    assert modules.inner_rules.main(flags) == 0
    *shown, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert json.loads((tmp_path / "made.json").read_text()) == result
    rates = result["choice"]["rates"]
    # By both, all rates are equal here.
    assert (rates["accuracy"]["quiz"], rates["both"]["quiz"]) == (3e-3, 1e-3)
    assert list(result["choice"]["tried"]["mix"]) == ["0.001", "0.003", "0.01", "0.03"]
    # On the seeds that choose all rates and no stream; on the others the chosen alone.
    assert {kind for seed, kind, _ in made.cells if seed < 3} == {"single"}
    reported = {n for s, _, n in made.cells if s > 2 and n.startswith("quiz")}
    assert reported == {"quiz/0.003", "quiz/0.001", "quiz/0.01"}
    assert set(result["report"]["0.01 for all"]["rates"].values()) == {0.01}
    found = result["report"]["accuracy"]
    assert list(found["single"]) == list(RULES)
    quiz = found["single"]["quiz"]
    assert quiz["own"]["mean"] == 0.75 and quiz["own"]["low"] == 0.75
    assert (quiz["asked"]["mean"], quiz["unasked"]["mean"]) == (1.0, 0.5)
    assert quiz["less_edits"]["own"]["diff"] == 0.25
    assert "less_quiz" not in quiz
    # Streams are about what is kept, and so are rates that were chosen by it.
    assert found["streams"] == {} != result["report"]["both"]["streams"]
    streams = result["report"]["0.003 for all"]["streams"]
    assert streams["edits"]["less_quiz"]["after_8"]["diff"] == -0.25
    assert found["cost"]["quiz"]["tokens"] == 14.0
    # Of three seeds 3, 4 and 5 tokens, and 3; mixed answers besides.
    assert found["cost"]["quiz"]["written_tokens"] == 4 + 3
    assert found["cost"]["mix"]["written_tokens"] == 4 + 3 + 2
    assert found["cost"]["quiz"]["write_seconds"] == 0.5
    # Cells that did not count what was answered between waves.
    assert found["cost"]["on_policy"]["written_tokens"] is None
    waves = result["variants"]["on_policy, waves 10"]["cost"]
    assert waves["written_tokens"] == 4 + 3 + 100
    assert found["refused"]["quiz"] == 3
    assert result["coverage"]["asked"]["mean"] == 0.5
    assert (result["coverage"]["dropped"], result["coverage"]["copied"]) == (3, 0)
    assert "distill, divergence reverse" in result["variants"]
    assert "on_policy, waves 10" in result["variants"]
    assert any(line.startswith("| `quiz` | 0.003 | 0.750 ± 0.000") for line in shown)
    assert any(line.startswith("| `quiz` - `edits` | +0.250") for line in shown)


def test_an_arm_names_what_its_rule_reads(modules):
    names = [
        modules.rule_seeds.Arm(rule, 1e-2, "jsd", 3).name
        for rule in ("mix", "distill_edits", "on_policy")
    ]
    assert names == ["mix/0.01", "distill_edits/0.01/jsd", "on_policy/0.01/jsd/waves3"]


def test_a_seed_in_both_stages_is_refused_in_one_line(modules, made, capsys):
    flags = ["--choose", "1", "2", "--report", "2", "3", "--workdir", "x"]
    assert modules.inner_rules.main(flags) == 2
    assert made.cells == []
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "--choose and --report share seed 2" in err


def test_what_is_written_is_counted_without_training(modules, made, capsys):
    flags = ["--choose", "1", "--report", "3", "4", "5", "--workdir", "x", "--written"]
    flags += ["--rules", "edits", "mix"]
    assert modules.inner_rules.main(flags) == 0
    *shown, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert result["benchmark"] == "inner_rules_written" and made.cells == []
    mixed = {"propose": 4.0, "again": 3.0, "mix": 2.0}
    assert result["written"]["mix"] == {"parts": mixed, "written_tokens": 9.0}
    assert result["coverage"]["written"] == 3 * 6
    assert "| `edits` | 4 | 3 | - | 7 |" in shown


# Stacks


def tree(rows, rank, value):
    """A stack of one linear, width 2, each row its own number."""
    each = np.arange(rows)[:, None, None] + np.full((rows, rank, 2), float(value))
    return {"0": {"q_proj": {"a": jnp.asarray(each), "b": jnp.asarray(each)}}}


def test_what_is_learned_lies_in_its_rows_and_block_alone(modules):
    learned = modules.rule_cells.Learned(
        [0, 2], tree(2, 1, 10.0), np.array([True, False]), {}
    )
    stack = modules.rule_cells._written(tree(3, 3, 0.5), learned, 1)
    before = tree(3, 3, 0.5)["0"]["q_proj"]["a"]
    got = stack["0"]["q_proj"]["b"]
    assert (got[0, 1] == 10.0).all()
    # An adapter that is not finite leaves an empty block.
    assert (got[2, 1] == 0.0).all()
    assert (got[1] == before[1]).all()
    assert (got[:, jnp.array([0, 2])] == before[:, jnp.array([0, 2])]).all()


@pytest.mark.slow
def test_cells_are_made_once_and_a_stream_is_asked_after_each_passage(
    modules, monkeypatch, tmp_path
):
    for module in (modules.rule_seeds, modules.rule_cells):
        monkeypatch.setattr(module, "LENGTH", 2)
    said = []
    sizes = modules.rule_seeds.Sizes(passages=2, streams=2, probes=1)
    arm = modules.rule_seeds.Arm("on_policy", 3e-3, "forward", 2)
    make = modules.rule_cells.cell_single, modules.rule_cells.cell_streams

    def cells():
        with modules.rule_seeds.opened(5, tmp_path, sizes, say=said.append) as seed:
            return [one(seed, arm) for one in make]

    made = cells()
    single, streams = made
    assert [len(p["own"][0]) for p in single["passages"]] == [6, 6]
    assert (single["refused"], single["failed"]) == (0, 0)
    # Ten epochs in two waves, an answer to each question before each.
    assert single["cost"]["sampled"] * 10 == single["cost"]["optimizer_steps"] * 2
    assert single["cost"]["teacher_tokens"] > 0
    # Answers of one to four tokens, with their ends.
    answers = single["cost"]["sampled"]
    assert answers <= single["cost"]["practised_tokens"] <= 4 * answers
    with modules.rule_seeds.opened(5, tmp_path, sizes, say=said.append) as seed:
        written = modules.rule_seeds.writing(seed, arm)
        cost = modules.rule_cells.costed(seed, arm)["cost"]
        entries = [
            seed.run.journal.get(f"single/quiz/{x}") for x in ("propose", "again")
        ]
    assert set(written["parts"]) == {"propose", "again"}
    assert 0 < written["parts"]["propose"] <= 96 * 2
    asked = sum(map(len, entries[1]["answers"]))
    assert asked <= written["parts"]["again"] <= 4 * asked
    assert written["write_seconds"] == sum(entry["seconds"] for entry in entries)
    total = written["written_tokens"] + single["cost"]["practised_tokens"]
    assert cost["written_tokens"] == total and "practised_tokens" not in cost
    assert [len(after) for after in streams["after"]] == [2, 2]
    for after, end in zip(streams["after"], streams["end"], strict=True):
        # After the last passage is the stream's end.
        assert after[1] == end["own"][1]
        assert len(end["own"]) == len(end["rephrased"]) == 2
    before = len(said)
    assert cells() == made
    assert len(said) == before
