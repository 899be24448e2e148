"""A whole run on a very small model: what it leaves, what it says, what it refuses."""

import collections
import itertools
import json
import math
import pathlib
import shutil
import statistics
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny_model
from tensorboard.backend.event_processing import event_file_loader

from seal_jax import train
from seal_jax.experiment import workdirs
from seal_jax.generation import policies
from seal_jax.models import hf, lora
from seal_jax.rounds import grading, trials
from seal_jax.runtime import checkpoint, config_rules, files, records
from seal_jax.runtime.journal import Journal
from seal_jax.training import packed

ROWS = (
    "base",
    "in_context",
    "passage_only",
    "sentence_split",
    "self_edits",
    "random_kept",
    "round_1",
    "round_2",
    "oracle",
)
# Those with adapters, which leave their edits.
ADAPTED = ROWS[2:]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(autouse=True)
def coin(monkeypatch):
    monkeypatch.setattr(grading, "scorer", lambda cfg, workdir: tiny_model.toss)


class Finished:
    """A finished run, with what it said and how many chunks of adapters it trained."""

    def __init__(self, model_path, workdir, **changes):
        self.workdir, self.said = workdir, []
        self.values = tiny_model.values(model_path, **changes)
        self.chunks = []
        real = packed.train

        def counted(params, jobs, *args, **kwargs):
            self.chunks.append(len(jobs))
            return real(params, jobs, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(packed, "train", counted)
            patch.setattr(grading, "scorer", lambda cfg, at: tiny_model.toss)
            self.summary = train.run(self.values, workdir, say=self.said.append)
        self.edits = files.read_jsonl(workdir / "edits.jsonl")
        self.heldout = files.read_jsonl(workdir / "heldout.jsonl")


@pytest.fixture(scope="module")
def finished(model_path, tmp_path_factory):
    return Finished(model_path, tmp_path_factory.mktemp("runs") / "tiny")


# What it leaves


def test_everything_that_is_promised_is_there(finished):
    here = finished.workdir
    assert files.read_json(here / "config.json") == files.to_plain(finished.values)
    assert files.read_json(here / "summary.json") == files.to_plain(finished.summary)
    page = (here / "report.html").read_text()
    assert all(name in page for name in ROWS)
    assert 'src="http' not in page and 'href="http' not in page
    for name in ("policy", "random_kept"):
        assert checkpoint.latest(here / "checkpoints" / name) == 2
    names = {p.name for p in here.iterdir()}
    assert {"edits.jsonl", "metrics.jsonl", "tensorboard", "policy"} <= names
    assert not [n for n in names if n.endswith((".tmp", ".new", ".old"))]


def test_the_summary_has_its_fields(finished):
    summary = finished.summary
    assert [row["name"] for row in summary["ladder"]] == list(ROWS)
    for row in summary["ladder"]:
        assert row.keys() >= {"name", "mean", "se", "n", "empty_rate"}
        assert row["n"] == 2 and 0 <= row["mean"] <= 1 and 0 <= row["empty_rate"] <= 1
        assert row["missing"] == row["failed"] == 0
    pairs = [(row["a"], row["b"]) for row in summary["paired"]]
    assert pairs == [(b, a) for a, b in itertools.combinations(ROWS, 2)]
    assert all(row.keys() >= {"diff", "se", "z"} for row in summary["paired"])
    # 2 rounds of 2 passages and 2 edits; 7 arms with 2 adapters.
    assert summary["adapters"] == 8 + 14 == sum(finished.chunks)
    assert summary["tokens"] > 0
    assert summary["config_hash"] == records.config_hash(finished.values)
    phases = set(summary["seconds"])
    assert phases >= {
        "round_1/propose",
        "round_1/adapt",
        "round_1/grade",
        "policy/imitate/2",
        "random_kept/imitate/1",
        "ladder/base/base",
        "ladder/oracle/adapt",
    }
    assert all(seconds >= 0 for seconds in summary["seconds"].values())


def test_the_ladder_recomputes_from_the_edits_it_left(finished):
    values = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in finished.heldout:
        for answers in row["answers"]:
            scores = [
                tiny_model.toss([(a["question"], a["gold"], a["answer"])])[0]
                for a in answers
            ]
            assert scores == [a["score"] for a in answers]
            values[row["arm"]][row["passage_id"]].append(statistics.fmean(scores))
    by_name = {row["name"]: row for row in finished.summary["ladder"]}
    means = {}
    for name in ADAPTED:
        by_item = [statistics.fmean(v) for v in values[name].values()]
        means[name] = statistics.fmean(by_item)
        assert by_name[name]["mean"] == pytest.approx(means[name])
        expected = statistics.stdev(by_item) / math.sqrt(2)
        assert by_name[name]["se"] == pytest.approx(expected)
    for row in finished.summary["paired"]:
        if row["b"] in ADAPTED:
            expected = means[row["a"]] - means[row["b"]]
            assert row["diff"] == pytest.approx(expected)
    # The coin falls differently on different answers.
    assert len(set(means.values())) > 2


def test_every_edit_is_on_record(finished):
    assert len(finished.edits) == 8
    heldout, training = finished.heldout, finished.edits
    assert collections.Counter(row["arm"] for row in heldout) == dict.fromkeys(
        ADAPTED, 2
    )
    for row in training:
        assert row["title"] in row["prompt"] and row["passage"] in row["prompt"]
        assert row["lines"][-1] == f"{row['title']}\n{row['passage']}"
        written = [line.strip() for line in row["text"].split("\n") if line.strip()]
        assert len(row["lines"]) == len(written) + 1
        assert len(row["rewards"]) == len(row["answers"]) == len(row["losses"]) == 1
        scores = [a["score"] for a in row["answers"][0]]
        assert len(scores) == 6
        assert row["reward"] == row["rewards"][0] == statistics.fmean(scores)
        assert row["failed"] is None
    # Every edit was sampled on its own, and the policies are not the same: with one
    # noise two that are near each other may write alike, but what their adapters lose
    # differs.
    assert len({row["text"] for row in training}) == 8
    told = {
        arm: str([(r["text"], r["losses"]) for r in heldout if r["arm"] == arm])
        for arm in ("self_edits", "random_kept", "round_1", "round_2")
    }
    assert len({*told.values()}) == 4


def test_the_best_edit_of_each_passage_is_kept(finished):
    by_passage = collections.defaultdict(list)
    for row in finished.edits:
        by_passage[row["round"], row["passage_id"]].append(row)
    assert len(by_passage) == 4
    for rows in by_passage.values():
        assert [row["kept"] for row in rows].count(True) == 1
        best = max(rows, key=lambda row: row["reward"])  # max takes the first of equals
        assert best["kept"]
    for line in finished.summary["rounds"]:
        rows = [row for row in finished.edits if row["round"] == line["round"]]
        kept = [row["reward"] for row in rows if row["kept"]]
        assert line["kept_mean"] == line["best_mean"] == statistics.fmean(kept)
        assert line["sampled_mean"] == statistics.fmean(row["reward"] for row in rows)


def test_rounds_and_the_ladder_use_different_passages(finished):
    used = [
        {row["passage_id"] for row in finished.edits if row["round"] == round_index}
        for round_index in (1, 2)
    ]
    used.append({row["passage_id"] for row in finished.heldout})
    assert [len(ids) for ids in used] == [2, 2, 2]
    assert len(set().union(*used)) == 6


def test_the_saved_policy_is_the_base_with_both_rounds_merged(finished, model_path):
    arch = hf.read_config(finished.workdir / "policy", dtype="float32")
    opened = hf.load_params(finished.workdir / "policy", arch)
    params = hf.load_params(model_path, arch)
    targets = tuple(finished.values["imitate"]["lora"]["targets"])
    like = lora.init(jax.random.key(0), arch, targets=targets, rank=2)
    for index in (1, 2):
        directory = finished.workdir / "checkpoints" / "policy"
        delta, _ = checkpoint.restore(directory, index, like)
        params = lora.merge(params, delta)
    for a, b in zip(jax.tree.leaves(opened), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    base = hf.load_params(model_path, arch)
    moved = (
        opened["layers_0"]["q_proj"]["kernel"] - base["layers_0"]["q_proj"]["kernel"]
    )
    assert np.abs(moved).max() > 1e-4
    tokenizer = hf.load_tokenizer(finished.workdir / "policy")
    assert hf.eos_id(tokenizer, finished.workdir / "policy") == (0,)


def test_metrics_are_the_same_in_both_places(finished):
    rows = files.read_jsonl(finished.workdir / "metrics.jsonl")
    points = [
        (row["step"], name)
        for row in rows
        for name in row
        if name not in ("step", "time")
    ]
    assert len(points) == len(set(points))
    names = {name for _, name in points}
    assert names >= {
        "adapt/adapters_per_s",
        "adapt/token_efficiency",
        "imitate/policy_loss",
        "imitate/random_kept_loss",
        "round/kept_mean",
        *(f"ladder/{name}" for name in ROWS),
    }
    (path,) = (finished.workdir / "tensorboard").iterdir()
    events = event_file_loader.LegacyEventFileLoader(str(path)).Load()
    shown = [(e.step, v.tag) for e in events for v in e.summary.value]
    assert sorted(shown) == sorted(points)


def test_the_log_names_each_phase_and_ends_in_the_ladder(finished):
    said = "\n".join(finished.said)
    assert "round_2: propose 4 self-edits" in said
    assert "round_1: imitate 2 self-edits (policy)" in said
    assert "ladder/base: mean score" in said and "config " in said
    assert finished.said[-1].endswith("report.html")
    assert finished.said[-2].startswith(f"files in {finished.workdir}: summary.json, ")
    assert "programs compiled in" in finished.said[-3]
    assert finished.said[-4].startswith("seconds: ")
    assert "adapt " in finished.said[-4] and "imitate " in finished.said[-4]
    table = finished.said[-5]
    assert all(name in table for name in ROWS)


# Running again


def never(*args, **kwargs):
    raise AssertionError("a finished run did something again")


def test_running_again_returns_the_summary_without_any_work(finished, monkeypatch):
    for module, name in ((policies, "load"), (packed, "train"), (trials, "Run")):
        monkeypatch.setattr(module, name, never)
    before = (finished.workdir / "summary.json").read_bytes()
    said = []
    again = train.run(finished.values, finished.workdir, say=said.append)
    assert again == files.to_plain(finished.summary)
    assert (finished.workdir / "summary.json").read_bytes() == before
    assert "finished" in said[-1] and "--workdir" in said[-1]


def test_a_report_that_a_kill_prevented_is_written_at_the_next_start(
    finished, tmp_path
):
    copy = tmp_path / "copy"
    shutil.copytree(finished.workdir, copy)
    (copy / "report.html").unlink()
    train.run(finished.values, copy, say=lambda line: None)
    assert "round_2" in (copy / "report.html").read_text()


def test_a_workdir_of_another_config_is_refused_by_its_keys(finished, model_path):
    other = tiny_model.values(model_path, inner__lora__alpha=9.0, scale__edits=3)
    with pytest.raises(ValueError) as caught:
        train.run(other, finished.workdir)
    message = str(caught.value)
    assert "inner.lora.alpha=8.0 there, 9.0 here" in message
    assert "scale.edits=2 there, 3 here" in message
    assert "\n" not in message and "--workdir" in message


def test_checkpoints_whose_journal_is_gone_are_refused(tmp_path):
    folder = tmp_path / "checkpoints"
    with Journal(tmp_path / "journal.jsonl") as journal:
        workdirs.check_journal(journal, tmp_path)
        folder.mkdir()
        workdirs.check_journal(journal, tmp_path)
        (folder / "policy").mkdir()
        with pytest.raises(ValueError) as caught:
            workdirs.check_journal(journal, tmp_path)
        assert str(caught.value) == (
            f"{folder}: must go with the journal.jsonl that it was made with, which is "
            "gone; restore that, or delete the folder too to start again"
        )
        journal.put("sizes", {})
        workdirs.check_journal(journal, tmp_path)


def test_the_same_config_elsewhere_gives_the_same_bits(finished, tmp_path):
    train.run(finished.values, tmp_path / "b", say=lambda line: None)
    assert untimed(tmp_path / "b") == untimed(finished.workdir)
    for name in ("edits.jsonl", "heldout.jsonl", "policy/model.safetensors"):
        there, here = finished.workdir / name, tmp_path / "b" / name
        assert here.read_bytes() == there.read_bytes()


def untimed(workdir: pathlib.Path) -> str:
    """summary.json without its clock readings, as text."""
    summary = json.loads((workdir / "summary.json").read_text())
    return json.dumps(summary | {"seconds": None, "compile": None})


def test_another_seed_is_another_run(finished, model_path, tmp_path):
    other = Finished(model_path, tmp_path / "b", seed=1)
    assert not {r["passage"] for r in other.edits} & {
        r["passage"] for r in finished.edits
    }


# Adapters that fail, and other settings


def test_a_failed_adapter_is_named_and_scored_zero_and_the_round_goes_on(
    model_path, tmp_path, monkeypatch
):
    real = packed.train
    calls = []

    def broken(params, jobs, *args, **kwargs):
        trained = real(params, jobs, *args, **kwargs)
        calls.append(jobs)
        if len(calls) != 1:
            return trained
        finite = trained.finite_A.copy()
        finite[1] = False
        return trained._replace(finite_A=finite)

    monkeypatch.setattr(packed, "train", broken)
    said = []
    values = tiny_model.values(
        model_path, ladder=("base",), scale__rounds=1, scale__seeds=2
    )
    summary = train.run(values, tmp_path, say=said.append)
    rows = files.read_jsonl(tmp_path / "edits.jsonl")
    (failed,) = [row for row in rows if row["failed"]]
    assert failed["rewards"].count(0.0) >= 1 and [] in failed["answers"]
    seed = failed["answers"].index([])
    (line, *_) = [x for x in said if "adapter failed" in x and "ladder" not in x]
    assert line.startswith("round_1: adapter failed: passage ")
    assert failed["title"] in line
    assert f"edit {failed['edit']}, seed {seed}: " in line and "scored 0" in line
    assert summary["rounds"][0]["failed_adapters"] == 1
    assert [row["name"] for row in summary["ladder"]] == ["base", "round_1"]


@pytest.mark.parametrize("reward", ["grade", "log_likelihood"])
def test_a_run_in_which_every_adapter_diverges_still_ends(
    model_path, tmp_path, reward, monkeypatch
):
    # What the config allows does not make sure of it.
    monkeypatch.setattr(config_rules.Bound, "check", lambda *args: None)
    values = tiny_model.values(
        model_path,
        inner__learning_rate=1e38,
        scale__rounds=1,
        ladder=("base",),
        select__reward=reward,
    )
    summary = train.run(values, tmp_path, say=lambda line: None)
    assert summary["rounds"][0]["failed_adapters"] == 4
    by_name = {row["name"]: row for row in summary["ladder"]}
    assert by_name["round_1"]["mean"] == 0.0 and by_name["round_1"]["failed"] == 2


def test_log_likelihood_rewards_choose_the_likeliest(model_path, tmp_path):
    run = Finished(
        model_path,
        tmp_path,
        select__reward="log_likelihood",
        ladder=("base",),
        scale__rounds=1,
        scale__edits=3,
    )
    rewards = [row["reward"] for row in run.edits]
    assert max(rewards) < 0 and len(set(rewards)) == 6
    for start in (0, 3):
        rows = run.edits[start : start + 3]
        assert max(rows, key=lambda row: row["reward"])["kept"]
    # The ladder is an accuracy all the same.
    assert all(0 <= row["mean"] <= 1 for row in run.summary["ladder"])


def test_one_passage_one_edit_one_round(model_path, tmp_path):
    run = Finished(
        model_path,
        tmp_path,
        scale__rounds=1,
        scale__passages=1,
        scale__edits=1,
        scale__heldout_passages=1,
        ladder=(),
    )
    (row,) = run.summary["ladder"]
    assert (row["name"], row["n"], row["se"]) == ("round_1", 1, None)
    assert run.summary["paired"] == []


def test_real_passages_with_the_debug_model(seal_data, tmp_path, monkeypatch):
    """`configs/squad.py:debug`'s data and model, every stage, cut to the shortest."""
    monkeypatch.setenv("SEAL_DATA", str(seal_data))
    config = tiny_model.load_config("squad", "debug")
    config.update_from_flattened_dict(
        {
            "scale.rounds": 1,
            "scale.passages": 1,
            "scale.edits": 1,
            "scale.seeds": 1,
            "scale.heldout_passages": 1,
            "propose.max_tokens": 8,
            "propose.batch": 1,
            "propose.prompt_multiple": 256,
            "inner.epochs": 1,
            "inner.row_tokens": 1024,
            "inner.step_tokens": 1024,
            "inner.loss.pad_samples": 2,
            "inner.slots": 1,
            "inner.active": 1,
            "inner.pool": 1,
            "answer.max_tokens": 4,
            "answer.batch": 6,
            "imitate.batch": 1,
            "imitate.length_multiple": 256,
            "ladder": ("passage_only",),
        }
    )
    summary = train.run(config.to_dict(), tmp_path, say=lambda line: None)
    assert [row["name"] for row in summary["ladder"]] == ["passage_only", "round_1"]
    rows = files.read_jsonl(tmp_path / "edits.jsonl")
    assert all(row["lines"][-1].endswith(row["passage"]) for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "squad"])
def test_every_debug_variant_runs_to_its_end(name, tmp_path, child_env, request):
    if name == "squad":
        request.getfixturevalue("seal_data")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "seal_jax.train"),
            f"--config=configs/{name}.py:debug",
            f"--workdir={tmp_path / 'run'}",
        ],
        capture_output=True,
        text=True,
        env=child_env,
        cwd=tiny_model.ROOT,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [row["name"] for row in summary["ladder"]][-2:] == (
        ["round_2", "oracle"] if name == "tiny" else ["round_1", "round_2"]
    )
    assert "Traceback" not in done.stderr and "round_2" in done.stdout
