"""Where numbers go besides metrics.jsonl, with fakes in the packages' places."""

import importlib.machinery
import json
import sys
import types
from pathlib import Path

import pytest

from seal_jax.experiment import checks, kinds, one_run
from seal_jax.runtime import files, metrics, writer_kinds, writers
from seal_jax.runtime.writers import WatchConfig


def read_state(workdir):
    return json.loads((workdir / writers.STATE_NAME).read_text())


class FakeRun:
    """Of either package: what it was given, by the id of its run."""

    url = "https://wandb.test/run"

    def __init__(self, kept, folder):
        self.kept, self.dir = kept, str(folder / "run-1" / "files")
        self.axes, self.fails = {}, False

    def define_metric(self, name, *, step_metric):
        self.axes[name] = step_metric

    def log(self, values, *, step=None):
        if self.fails:
            raise RuntimeError("connection\nlost")
        self.kept.append(values if step is None else values | {"step": step})

    def finish(self):
        self.kept.append("end")


class Fakes:
    """Fake packages `wandb` and `trackio`; `inits` are the arguments of each start."""

    def __init__(self, monkeypatch, tmp_path):
        self.inits, self.kept, self.runs = [], {}, []
        self.mode, self.logged_in, self.logins = "online", True, 0
        self.folder = tmp_path / "elsewhere"
        wandb, trackio = types.ModuleType("wandb"), types.ModuleType("trackio")
        wandb.__dict__.update(
            init=lambda **kw: self.init(kw["id"], kw),
            Settings=dict,
            setup=lambda _: types.SimpleNamespace(
                settings=types.SimpleNamespace(mode=self.mode)
            ),
            login=self.login,
        )
        trackio.__dict__.update(
            init=lambda **kw: self.init(kw["name"], kw),
            finish=lambda: self.runs[-1].finish(),
        )
        for module in (wandb, trackio):
            spec = importlib.machinery.ModuleSpec(module.__name__, None)
            module.__spec__ = spec
            monkeypatch.setitem(sys.modules, module.__name__, module)

    def init(self, name, arguments):
        print("noise of a library")
        self.inits.append(arguments)
        self.runs.append(FakeRun(self.kept.setdefault(name, []), self.folder))
        return self.runs[-1]

    def login(self, *, prompt, verify):
        self.logins += 1
        assert not prompt and verify
        return self.logged_in


@pytest.fixture
def fakes(monkeypatch, tmp_path):
    monkeypatch.delenv("TRACKIO_SPACE_ID", raising=False)
    return Fakes(monkeypatch, tmp_path)


def opened(workdir, *names, said=None, **more):
    lines = [] if said is None else said
    return metrics.Metrics(
        workdir,
        watch=WatchConfig(names, "seal"),
        config={"seed": 3},
        say=lines.append,
        **more,
    )


def test_a_resumed_run_goes_on_in_the_same_run_of_wandb(fakes, tmp_path):
    said = []
    with opened(tmp_path, "wandb", said=said) as log:
        log.log(1, {"adapt/rate": 2.0})
        log.log(0, {"ladder/base": 0.5, "loss": 3.0})
    with opened(tmp_path, "wandb") as log:
        log.log(1, {"adapt/rate": 9.0})
        log.log(2, {"adapt/rate": 4.0})
    first, second = fakes.inits
    assert first["id"] == second["id"] and first["resume"] == "allow"
    assert (first["name"], first["project"]) == (tmp_path.name, "seal")
    assert first["config"] == {"seed": 3} and first["dir"] == str(tmp_path)
    assert fakes.kept[first["id"]] == [
        {"adapt/rate": 2.0, "adapt/step": 1},
        {"ladder/base": 0.5, "ladder/step": 0, "loss": 3.0, "step": 0},
        "end",
        {"adapt/rate": 4.0, "adapt/step": 2},
        "end",
    ]
    assert fakes.runs[0].axes == {
        "adapt/rate": "adapt/step",
        "ladder/base": "ladder/step",
        "loss": "step",
    }
    assert said == ["watch: wandb: https://wandb.test/run"]
    assert read_state(tmp_path)["wandb"]["rows"] == 3


def test_a_writer_that_is_added_gets_what_there_was(fakes, tmp_path, capsys):
    with opened(tmp_path, "tensorboard") as log:
        log.log(0, {"loss": float("nan")})
        log.log(1, {"loss": 1.0})
    assert not (tmp_path / writers.STATE_NAME).exists()
    with opened(tmp_path, "trackio", "tensorboard") as log:
        log.log(2, {"loss": 0.5})
    (arguments,) = fakes.inits
    name = f"{tmp_path.name}-{read_state(tmp_path)['trackio']['id']}"
    assert arguments["name"] == name and arguments["resume"] == "never"
    rows = fakes.kept[name]
    assert [row["step"] for row in rows[:-1]] == [0, 1, 2]
    assert str(rows[0]["loss"]) == "nan" and rows[2]["loss"] == 0.5
    with opened(tmp_path, "trackio"):
        pass
    assert fakes.inits[1]["name"] == name and fakes.inits[1]["resume"] == "allow"
    assert rows[3:] == ["end", "end"]
    assert "noise" not in capsys.readouterr().out


def test_a_writer_that_fails_is_left_out_and_the_run_goes_on(fakes, tmp_path):
    said = []
    with opened(tmp_path, "wandb", "trackio", said=said) as log:
        log.log(0, {"loss": 3.0})
        fakes.runs[0].fails = True
        log.log(1, {"loss": 2.0})
        log.log(2, {"loss": 1.0})
    assert [line for line in said if "left out" in line] == [
        "watch: wandb is left out from here on (RuntimeError: connection lost); "
        "metrics.jsonl has everything, and the next start of this run tries again"
    ]
    rows = (tmp_path / metrics.FILE_NAME).read_text().splitlines()
    assert len(rows) == 3
    assert len(fakes.kept[fakes.inits[1]["name"]]) == 4
    # The next start sends what is missing, and only that.
    with opened(tmp_path, "wandb"):
        pass
    kept = fakes.kept[fakes.inits[0]["id"]]
    assert [row["loss"] for row in kept if row != "end"] == [3.0, 2.0, 1.0]


@pytest.mark.parametrize("fails", ["close", "write"])
def test_what_a_failed_close_may_have_lost_is_sent_again(fakes, tmp_path, fails):
    now, said = [100.0], []
    with opened(tmp_path, "wandb") as log:
        log.log(0, {"loss": 0.0})
    log = opened(tmp_path, "wandb", said=said, clock=lambda: now[0])
    for step in (1, 2, 3):
        now[0] += 6
        log.log(step, {"loss": float(step)})
    assert read_state(tmp_path)["wandb"]["rows"] == 3
    fakes.runs[1].finish = lambda: 1 // 0  # As if nothing of it had arrived.
    fakes.runs[1].fails = fails == "write"
    if fails == "write":
        log.log(4, {"loss": 4.0})
        now[0] += 6
        log.log(5, {"loss": 5.0})
    log.close()
    assert "left out" in said[-1]
    assert read_state(tmp_path)["wandb"]["rows"] == 1
    kept = fakes.kept[fakes.inits[0]["id"]]
    kept.clear()
    with opened(tmp_path, "wandb"):
        pass
    last = 3 if fails == "close" else 5
    assert [row["step"] for row in kept if row != "end"] == [*range(1, last + 1)]


def test_a_kill_while_earlier_rows_are_sent_keeps_the_id(fakes, tmp_path, monkeypatch):
    with opened(tmp_path) as log:
        log.log(0, {"loss": 0.0})

    def kill(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FakeRun, "log", kill)
        # A killed process does not close what it has.
        patch.setattr(writers.Writers, "close", lambda self: None)
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path, "wandb")
    assert read_state(tmp_path)["wandb"]["rows"] == 0
    with opened(tmp_path, "wandb"):
        pass
    first, second = fakes.inits
    assert first["id"] == second["id"]
    assert [row["step"] for row in fakes.kept[first["id"]][:-1]] == [0]


def test_a_full_disk_under_tensorboard_ends_no_run(tmp_path, monkeypatch):
    def full(_, values):
        raise files.DiskFullError(28, tmp_path / "tensorboard")

    said = []
    with opened(tmp_path, "tensorboard", said=said) as log:
        monkeypatch.setattr(writer_kinds.TensorBoard, "_put", full)
        log.log(0, {"loss": 1.0})
        log.log(1, {"loss": 1.0})
    assert len(said) == 1 and "tensorboard is left out" in said[0]


def test_after_a_kill_what_may_be_lost_is_sent_again(fakes, tmp_path):
    now = [100.0]
    log = opened(tmp_path, "wandb", clock=lambda: now[0])
    for step, when in enumerate((100.0, 103.0, 106.0, 109.0, 112.0)):
        now[0] = when
        log.log(step, {"loss": float(step)})
    # No close: rows that were given within the last seconds do not count as there.
    assert read_state(tmp_path)["wandb"]["rows"] == 3
    with opened(tmp_path, "wandb"):
        pass
    (kept,) = fakes.kept.values()
    assert [row["step"] for row in kept if row != "end"] == [0, 1, 2, 3, 4, 3, 4]


def test_rows_that_were_taken_back_are_not_waited_for(fakes, tmp_path):
    with opened(tmp_path, "wandb") as log:
        for step in range(3):
            log.log(step, {"ladder/base": 1.0})
    metrics.forget(tmp_path, lambda name: name.startswith("ladder/"))
    with opened(tmp_path, "wandb") as log:
        log.log(0, {"ladder/base": 2.0})
    (kept,) = fakes.kept.values()
    assert [row["ladder/base"] for row in kept if row != "end"] == [1.0, 1.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("mode", "logged_in", "asked"), [("online", True, 1), ("offline", False, 0)]
)
def test_a_login_is_asked_for_at_the_start(fakes, mode, logged_in, asked):
    fakes.mode, fakes.logged_in = mode, logged_in
    writers.check(WatchConfig(("wandb", "trackio", "tensorboard"), "seal"))
    assert fakes.logins == asked


def refused(names):
    with pytest.raises(ValueError) as caught:
        writers.check(WatchConfig(names, "seal"))
    message = str(caught.value)
    assert "\n" not in message and "watch.writers" in message
    return message


def test_what_cannot_work_is_refused_in_one_line(fakes, monkeypatch):
    fakes.logged_in = False
    assert refused(("wandb",)).startswith(
        "watch.writers names 'wandb', and there is no"
    )
    sys.modules["wandb"].__dict__["login"] = lambda **_: 1 // 0
    assert "cannot be used (ZeroDivisionError" in refused(("wandb",))
    monkeypatch.setenv("TRACKIO_SPACE_ID", "me/space")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "hf auth login" in refused(("trackio",))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "wandb" else find(name),
    )
    assert "pip install 'seal-jax[wandb]'" in refused(("tensorboard", "wandb"))


def test_a_writer_that_does_not_open_is_told_at_the_start(fakes, tmp_path):
    def broken(**_):
        raise RuntimeError("no such\nentity")

    sys.modules["wandb"].__dict__["init"] = broken
    with pytest.raises(ValueError, match=r"'wandb': cannot be opened \(.*no such ent"):
        opened(tmp_path, "tensorboard", "wandb")
    assert not (tmp_path / writers.STATE_NAME).exists()


@pytest.mark.parametrize(
    "text", ["[]", '{"wandb": {"id": 3, "rows": 0}}', '{"wandb": {"id": "a"}}']
)
def test_an_altered_state_is_named(fakes, tmp_path, text):
    (tmp_path / writers.STATE_NAME).write_text(text)
    with pytest.raises(ValueError, match=r"writers\.json: must hold"):
        opened(tmp_path, "wandb")


@pytest.mark.parametrize(
    ("names", "project", "part"),
    [
        (("wandbb",), "seal", "use 'wandb'"),
        (("wandb", "wandb"), "seal", "must differ"),
        ((), "my/seal", "watch.project='my/seal'"),
        ((), "", "use 'seal'"),
    ],
)
def test_a_config_of_no_writer_is_refused(names, project, part):
    with pytest.raises(ValueError, match="watch") as caught:
        WatchConfig(names, project)
    assert part in str(caught.value)


def test_no_writer_at_all_leaves_the_record(tmp_path):
    with opened(tmp_path) as log:
        log.log(0, {"loss": 1.0})
    assert [p.name for p in tmp_path.iterdir()] == [metrics.FILE_NAME]


def test_all_kinds_of_runs_can_be_watched():
    fields = [
        {f.name for f in kind.config.__dataclass_fields__.values()}
        for kind in kinds.KINDS
    ]
    assert all("watch" in names for names in fields)


def test_the_lock_holds_the_packages():
    text = Path(__file__).parents[2].joinpath("pyproject.toml").read_text()
    for name, kind in writers.WRITERS.items():
        assert f'"{kind.package}>=' in text, name


def test_a_run_asks_for_them_before_all_else(fakes, monkeypatch, tmp_path):
    fakes.logged_in = False
    monkeypatch.setattr(checks, "check", lambda *_: pytest.fail("went on"))
    exp = types.SimpleNamespace(watch=WatchConfig(("wandb",), "seal"))
    with pytest.raises(ValueError, match="names 'wandb', and there is no login"):
        one_run.run(exp, {}, tmp_path / "run", say=print)  # pyright: ignore
    assert not (tmp_path / "run").exists()
