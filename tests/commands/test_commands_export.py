"""`seal-jax export`: policies and adapters of a run, as they were."""

import json
import re

import jax
import numpy as np
import pytest
import tiny_model
from golden_models import assert_same_trees

import seal_jax as seal
from seal_jax import train
from seal_jax.commands import export, past_runs
from seal_jax.models import hf, lora
from seal_jax.runtime import checkpoint, files


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def made(base, tmp_path_factory):
    """A workdir as a run of two rounds leaves it, and its deltas; nothing was run."""
    run = tmp_path_factory.mktemp("made") / "run"
    run.mkdir()
    values = tiny_model.values(base, ladder=("base",))
    (run / "config.json").write_text(json.dumps(values))
    (run / "journal.jsonl").write_text("")
    arch = hf.read_config(base, dtype="float32")
    deltas = []
    for index in (1, 2):
        key = jax.random.key(index)
        targets = tuple(values["imitate"]["lora"]["targets"])
        delta = lora.init(key, arch, targets=targets, rank=2)
        delta = jax.tree.map(lambda x: np.asarray(x + 0.1), delta)
        checkpoint.save(run / "checkpoints" / "policy", index, delta, {})
        deltas.append(delta)
    rows = [
        {
            "round": r,
            "passage_id": f"id{r}{p}",
            "edit": e,
            "prompt": "x",
            "text": f"text {r}{p}{e}",
            "refused": "blank" if (r, p, e) == (2, 1, 1) else None,
            "losses": [] if (r, p, e) == (2, 1, 1) else [1.0],
            "reward": 0.5,
            "kept": e == 0,
        }
        for r in (1, 2)
        for p in (0, 1)
        for e in (0, 1)
    ]
    files.write_jsonl(run / "edits.jsonl", rows)
    return run, deltas


def params_of(path):
    return seal.load(path).policy.params


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_policy_after_a_round_has_its_deltas_merged(
    made, base, index, tmp_path, ended
):
    run, deltas = made
    out = tmp_path / "out"
    assert ended(export.main, run, "--round", index, "--out", out)[0] == 0
    want = seal.load(base).policy
    for delta in deltas[:index]:
        want = want.merged(delta)
    assert_same_trees(params_of(out), want.params)
    assert (out / "tokenizer.json").exists()
    card = (out / "README.md").read_text()
    which = f"the policy after round {index}" if index else "the base"
    assert f"\n# run: {which}\n" in card and f"| base model | {base} |" in card


def test_the_newest_policy_is_copied_as_it_is(made, tmp_path, ended, refused):
    run, _ = made
    out = tmp_path / "out"
    refused(export.main, run, "--out", out, parts=["no policy yet", "--round=0"])
    (run / "policy").mkdir(exist_ok=True)
    (run / "policy" / "config.json").write_text("{}")
    assert ended(export.main, run, "--out", out)[0] == 0
    assert sorted(p.name for p in out.iterdir()) == ["README.md", "config.json"]


def test_edits_are_listed_and_found_by_number_and_id(made, ended):
    run, _ = made
    status, out, _ = ended(export.main, run, "--list")
    names = re.findall(r"^(\d/\d/\d) ", out, re.M)
    assert status == 0 and len(names) == 8
    assert (names[0], names[-1]) == ("1/0/0", "2/1/1")
    assert "kept  text 100" in out and "blank  text 211" in out
    past = past_runs.read(str(run))
    for name in ("2/1/0", "2/id21/0"):
        place = past_runs.find(past, name)
        assert (place.round, place.item, place.edit) == (2, 1, 0)
        assert place.row["text"] == "text 210"


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--edit=1/0/7"], ["--edit='1/0/7'", "of the 8 edits", "--list"]),
        (["--edit=first"], ["must be ROUND/ITEM/EDIT"]),
        (["--edit=2/1/1"], ["refused (blank) and never trained"]),
        (["--edit=1/0/0", "--seed=1"], ["--seed=1", "of 1 seeds"]),
        # It is not of the passages that its config names.
        (["--edit=1/0/0"], ["item 0 of round 1 is not that of the run"]),
        (["--round=3"], ["--round=3 must be at most 2"]),
        (["--round=1", "--edit=1/0/0"], ["not allowed with argument"]),
        (["--rnd=1"], ["did you mean --round?"]),
    ],
)
def test_what_there_is_not_is_refused_in_one_line(made, flags, parts, refused):
    refused(export.main, made[0], *flags, "--out=o", parts=parts)


def test_what_is_no_run_of_rounds_is_refused(made, tmp_path, refused):
    refused(export.main, tmp_path, "--list", parts=["holds no journal.jsonl"])
    refused(export.main, made[0], parts=["required: --out"])
    values = json.loads((made[0] / "config.json").read_text())
    values["over_seeds"] = dict(count=2, chunk=1, together=1, march=1)
    (tmp_path / "journal.jsonl").write_text("")
    (tmp_path / "config.json").write_text(json.dumps(values))
    status_parts = ["error: "]
    refused(export.main, tmp_path, "--list", parts=status_parts)


@pytest.mark.slow
def test_adapters_of_a_run_answer_as_they_did(base, tmp_path, ended, rows):
    """Trained again they have the run's losses, and give the run's answers."""
    run = tmp_path / "run"
    values = tiny_model.values(
        base, ladder=("base",), scale__seeds=2, inner__learning_rate=0.01
    )
    train.run(values, run, say=lambda line: None)
    edits = rows(run / "edits.jsonl")
    seal_model = seal.load(base)
    template = "Topic: {title}\nQuestion: {question}\nAnswer:\n"
    for number, name, seed in [(1, "1/0/1", 1), (2, "1/1/0", 0), (5, "2/0/1", 1)]:
        out = tmp_path / f"adapter-{number}"
        assert (
            ended(*(export.main, run, "--edit", name, "--seed", seed, "--out", out))[0]
            == 0
        )
        model = seal_model
        if name.startswith("2"):
            policy = tmp_path / "policy-1"
            assert ended(export.main, run, "--round=1", "--out", policy)[0] == 0
            model = seal.load(policy)
        adapters = seal.load_peft(out, model=model)
        answered = edits[number]["answers"][seed]
        prompts = [
            template.format(title=edits[number]["title"], question=a["question"])
            for a in answered
        ]
        texts = model.generate(prompts, adapters, max_tokens=3)
        assert texts == [a["answer"] for a in answered]
    newest = tmp_path / "newest"
    ended(export.main, run, "--round=2", "--out", newest)
    assert_same_trees(params_of(newest), params_of(run / "policy"))
