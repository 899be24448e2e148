"""A finished run that gets a round more is the run that had it from the start."""

import json
import pathlib
import shutil

import pytest
import tiny_model

from seal_jax import train
from seal_jax.experiment import kinds, sizes, workdirs
from seal_jax.forecast import machine, work
from seal_jax.generation import policies
from seal_jax.rounds import grading, more_rounds
from seal_jax.runtime import backend, files, records
from seal_jax.runtime.journal import Journal
from seal_jax.training import packed

# All rows but those of other tests, and the control, which walks all rounds.
LADDER = ("base", "passage_only", "self_edits", "random_kept", "oracle")


@pytest.fixture(autouse=True)
def coins(monkeypatch):
    monkeypatch.setattr(grading, "scorer", lambda cfg, workdir: tiny_model.toss)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a model, of a run of two rounds and of one of three."""
    folder = tmp_path_factory.mktemp("more")
    tiny_model.write(folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grading, "scorer", lambda cfg, workdir: tiny_model.toss)
        for rounds in (2, 3):
            train.run(values(folder, rounds), folder / f"of_{rounds}", say=silent)
    return folder


def silent(line: str) -> None:
    pass


def values(folder: pathlib.Path, rounds: int, **changes):
    changes = {"scale__rounds": rounds, "ladder": LADDER} | changes
    return tiny_model.values(folder / "model", **changes)


@pytest.fixture
def begun(made, tmp_path):
    """A copy of the finished run of two rounds."""
    return pathlib.Path(shutil.copytree(made / "of_2", tmp_path / "run"))


def assert_same_run(here: pathlib.Path, there: pathlib.Path) -> None:
    for name in ("edits.jsonl", "heldout.jsonl", "config.json"):
        assert (here / name).read_bytes() == (there / name).read_bytes(), name
    weights = "policy/model.safetensors"
    assert (here / weights).read_bytes() == (there / weights).read_bytes()
    summaries = [json.loads((at / "summary.json").read_text()) for at in (here, there)]
    for summary in summaries:
        summary["seconds"] = sorted(summary["seconds"])
        summary["compile"] = None
    assert json.dumps(summaries[0]) == json.dumps(summaries[1])
    numbers = [
        {
            (row["step"], name): value
            for row in files.read_jsonl(at / "metrics.jsonl")
            for name, value in row.items()
            if name.startswith(("ladder/", "round/", "imitate/"))
        }
        for at in (here, there)
    ]
    assert numbers[0] == numbers[1]
    # The items are stored again when there are more of them.
    keys = [
        sorted(
            row["key"]
            for row in files.read_jsonl(at / "journal.jsonl")
            if row["key"] != "items"
        )
        for at in (here, there)
    ]
    assert keys[0] == keys[1] and len(keys[0]) == len(set(keys[0]))
    items = [Journal(at / "journal.jsonl").get("items") for at in (here, there)]
    assert items[0] == items[1]


@pytest.mark.parametrize("how", ["flag", "config"])
def test_a_round_more_is_the_run_of_three_from_the_start(made, begun, monkeypatch, how):
    assert (begun / "summary.json").exists()
    old = {row["key"] for row in files.read_jsonl(begun / "journal.jsonl")}
    put, new = Journal.put, []

    def telling(self, key, value):
        new.append(key)
        put(self, key, value)

    monkeypatch.setattr(Journal, "put", telling)
    more = {"more_rounds": 1} if how == "flag" else {}
    train.run(values(made, 3 - len(more)), begun, say=silent, **more)
    assert_same_run(begun, made / "of_3")
    # Nothing but the new round, its row, and the control's row was done.
    control = "ladder/random_kept/"
    assert new.count("items") == 1
    again = [key for key in new if key in old and key != "items"]
    assert again and all(key.startswith(control) for key in again)
    rest = {key for key in new if key not in old}
    assert rest and all("3" in key for key in rest)
    # And the same command finds it finished.
    said = []
    train.run(values(made, 3 - len(more)), begun, say=said.append, **more)
    assert "holds a finished run" in said[-1]
    assert said[-1].endswith("or raise scale.rounds for more rounds")


class Texts:
    """What is asked of a task about its items, which are texts here."""

    name = text = propose_prompt = staticmethod(str)
    prompts = gold = staticmethod(list)


def test_a_begun_round_more_goes_on_with_its_own_items(tmp_path):
    def check(*train, rising=True):
        with Journal(tmp_path / "journal.jsonl") as journal:
            workdirs.check_items(journal, Texts(), train, ["out"], rising=rising)  # pyright: ignore[reportArgumentType]
            return len(journal.get("items")["train"])

    assert check(["a"]) == 1
    assert check(["a"], ["b"]) == check(["a"], ["b"]) == 2
    with pytest.raises(ValueError, match="begun with other data"):
        check(["a"], ["c"])
    assert check(["a"]) == 2  # Fewer take nothing back.
    assert check(["a"], ["b"], rising=False) == 2
    # Where lists are streams of a log, one more or less is another file.
    for lists in ([["a"]], [["a"], ["b"], ["c"]]):
        with pytest.raises(ValueError, match="begun with other data"):
            check(*lists, rising=False)


@pytest.mark.parametrize("step", ["forget", "write_json"])
def test_a_kill_while_it_is_made_ready_loses_nothing(made, begun, monkeypatch, step):
    module = {"forget": more_rounds.metrics, "write_json": more_rounds.records}[step]

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, step, stop)
        more_rounds.extend(
            begun, values(made, 3), summary=workdirs.SUMMARY, last_arms=()
        )
    if step == "forget":
        # Also as what it was: its control's row is measured once more.
        trained = packed.train
        calls = []
        monkeypatch.setattr(
            packed, "train", lambda *a, **k: calls.append(1) or trained(*a, **k)
        )
        train.run(values(made, 2), begun, say=silent)
        assert len(calls) == 1
        assert_same_run(begun, made / "of_2")
    train.run(values(made, 3), begun, say=silent)
    assert_same_run(begun, made / "of_3")


@pytest.mark.parametrize(
    ("rounds", "changes", "said"),
    [
        (1, {}, "scale.rounds=2 there, 1 here; give another"),
        (3, {"seed": 1}, "scale.rounds=2 there, 3 here; seed=0 there, 1 here"),
        (2, {"scale__edits": 3}, "scale.edits=2 there, 3 here; give another"),
    ],
)
def test_anything_else_is_refused_and_changes_nothing(
    made, begun, rounds, changes, said
):
    before = {p: p.read_bytes() for p in begun.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match="holds a run of another config") as caught:
        train.run(values(made, rounds, **changes), begun, say=silent)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    after = {p: p.read_bytes() for p in begun.rglob("*") if p.is_file()}
    assert {p.name for p in before if before[p] != after[p]} <= {".lock"}


def test_more_rounds_need_a_run_and_a_policy_that_has_them(made, tmp_path):
    with pytest.raises(ValueError, match=r"^--more_rounds=1: .*new holds no run"):
        train.run(values(made, 2), tmp_path / "new", say=silent, more_rounds=1)
    assert not (tmp_path / "new").exists()
    for name, arg in (("continual", "debug"), ("tiny", "seeds")):
        config = tiny_model.load_config(name, arg).to_dict()
        with pytest.raises(ValueError, match=r"this config .* has none"):
            train.run(config, tmp_path, say=silent, more_rounds=1)


def test_the_last_policys_rows_go_too(tmp_path):
    """Those of few-shot rounds: the row `constant` is of the last policy."""
    old, new = ({"scale": {"rounds": n}} for n in (1, 2))
    records.open_workdir(tmp_path, old)
    with Journal(tmp_path / "journal.jsonl") as journal:
        for key in ("ladder/constant/adapt/0", "ladder/oracle/adapt/0", "stop/1"):
            journal.put(key, {"a": [1.5, float("nan")]})
    more_rounds.extend(tmp_path, new, summary="summary.json", last_arms=("constant",))
    assert records.risen(tmp_path, new, more_rounds.KEY) is False
    with Journal(tmp_path / "journal.jsonl", summed=True) as journal:
        assert journal.keys() == ["ladder/oracle/adapt/0", "stop/1"]
        assert str(journal.get("stop/1")) == "{'a': [1.5, nan]}"


# Here, where the programs have been compiled already.
def test_a_dry_run_counts_what_the_run_did(made, monkeypatch):
    """The same sizes and memory as train finds, and as many adapters as it trained."""
    config = values(made, 3)
    exp = kinds.read(config)
    arch = policies.describe(exp.model).arch
    said, told = [], []
    cfg = sizes.size(exp, arch, None, say=said.append)
    sized = machine.size(exp, arch, None)
    assert sized.compiled and sized.cfg == cfg and sized.memory is not None
    assert sized.memory.line() in said[0]
    summary = json.loads((made / "of_3" / "summary.json").read_text())
    phases = work.phases(exp, work.text(exp))
    assert summary["adapters"] == sum(phase.adapters for phase in phases)
    rows = files.read_jsonl(made / "of_3" / "edits.jsonl")
    assert len(rows) == sum(p.written for p in phases if p.name.startswith("round"))
    train.foretell(config, say=told.append)
    assert any(line.endswith(", by the compiled program") for line in told)
    # What cannot fit is told, and is no error.
    monkeypatch.setattr(backend, "memory_limit", lambda device: 1000)
    train.foretell(config, say=told.append)
    assert any("does not fit there: the base takes" in line for line in told)
