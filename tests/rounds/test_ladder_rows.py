"""What the names of the ladder's rows say."""

import pytest

from seal_jax.rounds import few_shot_settings, ladder_rows
from seal_jax.rounds import settings as rounds_settings
from seal_jax.rounds.ladder_rows import RowKind
from seal_jax.runtime import files, metrics, writers


@pytest.mark.parametrize(
    ("name", "kind", "index"),
    [
        ("base", RowKind.NO_ADAPTER, None),
        ("in_context", RowKind.NO_ADAPTER, None),
        ("self_edits", RowKind.ARM, None),
        ("oracle", RowKind.ARM, None),
        ("random_kept", RowKind.CONTROL, None),
        ("round_1", RowKind.ROUND, 1),
        ("round_12", RowKind.ROUND, 12),
        ("ladder/round_1", RowKind.ARM, None),
    ],
)
def test_the_kind_of_a_row(name, kind, index):
    assert ladder_rows.kind_of(name) is kind
    assert ladder_rows.round_of(name) == index
    if index is not None:
        assert ladder_rows.round_name(index) == name


def test_no_row_of_a_config_is_taken_for_a_round():
    names = (*rounds_settings.BASE_ARMS, *rounds_settings.CONTROL_ARMS)
    for name in (*names, *few_shot_settings.BASE_ARMS, *few_shot_settings.LAST_ARMS):
        assert ladder_rows.kind_of(name) is not RowKind.ROUND


def test_means_are_logged_at_their_place_and_a_row_without_one_is_left_out(tmp_path):
    table = [{"name": "base", "mean": 0.25}, {"name": "self_edits", "mean": None}]
    table += [{"name": "round_1", "mean": 0.5}]
    with metrics.Metrics(tmp_path, watch=writers.WatchConfig((), "seal")) as log:
        ladder_rows.log_means(log, table)
    rows = files.read_jsonl(tmp_path / "metrics.jsonl")
    assert [{k: v for k, v in row.items() if k != "time"} for row in rows] == [
        {"step": 0, "ladder/base": 0.25},
        {"step": 2, "ladder/round_1": 0.5},
    ]
