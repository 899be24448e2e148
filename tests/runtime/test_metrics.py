import json
import math
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing import event_accumulator

from seal_jax.runtime import files, metrics


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def read_events(workdir):
    """What TensorBoard's own reader finds: {tag: [(step, value)]}."""
    reader = event_accumulator.EventAccumulator(str(workdir / "tensorboard"))
    reader.Reload()
    return {
        tag: [(e.step, e.value) for e in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def rows(workdir):
    return [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_scalars_reach_both_files(tmp_path):
    with metrics.Metrics(tmp_path, clock=lambda: 5.0) as log:
        log.log(0, {"loss": 0.5, "round/reward": 0.25})
        log.log(1, {"loss": 0.125})
        log.log(2, {})
    assert rows(tmp_path) == [
        {"step": 0, "time": 5.0, "loss": 0.5, "round/reward": 0.25},
        {"step": 1, "time": 5.0, "loss": 0.125},
    ]
    assert read_events(tmp_path) == {
        "loss": [(0, 0.5), (1, 0.125)],
        "round/reward": [(0, 0.25)],
    }


def test_a_resumed_run_adds_no_double_points(tmp_path):
    with metrics.Metrics(tmp_path) as log:
        log.log(0, {"loss": 1.0})
        log.log(1, {"loss": 2.0})
    with metrics.Metrics(tmp_path) as log:
        log.log(1, {"loss": 9.0, "extra": 3.0})
        log.log(1, {"loss": 9.0})
        log.log(2, {"loss": 4.0})
    expected = {"loss": [(0, 1.0), (1, 2.0), (2, 4.0)], "extra": [(1, 3.0)]}
    assert read_events(tmp_path) == expected
    assert len(rows(tmp_path)) == 4


def test_a_kill_between_the_two_files_leaves_no_gap(tmp_path):
    with metrics.Metrics(tmp_path) as log:
        log.log(0, {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"loss": 2.0, "step": 1, "time": 7.0}\n{"loss": 3.0, "st')
    (event_file,) = (tmp_path / "tensorboard").iterdir()
    event_file.write_bytes(event_file.read_bytes()[:-3])
    with metrics.Metrics(tmp_path) as log:
        log.log(2, {"loss": 3.0})
    assert read_events(tmp_path) == {"loss": [(0, 1.0), (1, 2.0), (2, 3.0)]}
    assert [row["step"] for row in rows(tmp_path)] == [0, 1, 2]


def test_values_that_are_not_finite(tmp_path):
    with metrics.Metrics(tmp_path) as log:
        log.log(0, {"loss": math.inf, "other": math.nan})
    assert rows(tmp_path)[0]["loss"] is None
    assert read_events(tmp_path)["loss"] == [(0, math.inf)]
    with metrics.Metrics(tmp_path) as log:
        log.log(0, {"loss": 1.0})
    ((step, value),) = read_events(tmp_path)["loss"]
    assert step == 0
    assert math.isnan(value)


def test_reserved_names_are_refused(tmp_path):
    with (
        metrics.Metrics(tmp_path) as log,
        pytest.raises(ValueError, match=r"metric 'step': .* rename it"),
    ):
        log.log(0, {"step": 1.0})


def test_a_foreign_row_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "time": 1.0}\n{"loss": 1}\n')
    with pytest.raises(ValueError, match="line 2: must be one JSON entry"):
        metrics.Metrics(tmp_path)


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    with metrics.Metrics(tmp_path) as log:

        def full(fd, data):
            raise OSError(28, "no space")

        monkeypatch.setattr("os.write", full)
        with pytest.raises(files.DiskFullError, match=r"metrics\.jsonl: cannot be"):
            log.log(0, {"loss": 1.0})
    assert rows(tmp_path) == []


def test_tensorflow_is_not_imported(child_env):
    code = (
        "import sys; from seal_jax.runtime import metrics; "
        "sys.exit('tensorflow' in sys.modules or 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=child_env, check=False)
    assert done.returncode == 0
