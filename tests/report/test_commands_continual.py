import copy
import json
import statistics

import pytest

from seal_jax.analysis import forgetting
from seal_jax.analysis.forgetting import Matrix
from seal_jax.continual import files as continual_files
from seal_jax.report.commands import continual

RESULTS = "knowledge-incorporation/results/continual_self_edits"

TWO = Matrix(
    ((0.5, 0.2), (0.7,), (0.4, 0.6)),
    4,
    ((0.1, 0.2), (0.3,), (0.2, 0.1)),
    "data/x.json",
    "models/m",
)
OTHER = Matrix(
    ((0.3, 0.2), (0.5,), (0.2, 0.8)),
    4,
    ((0.3, 0.1), (0.2,), (0.1, 0.1)),
    "data/x.json",
    "models/m",
)
SQUARE = {
    "mean_over_sequences": [[0.5, 0.2], [0.7, 0.0], [0.4, 0.6]],
    "std_over_sequences": [[0.1, 0.2], [0.3, 0.0], [0.2, 0.1]],
    "n_sequences": 4,
    "n_datapoints": 2,
    "dataset": "data/x.json",
    "base_model": "models/m",
}


def test_the_layout_is_a_square_with_0_where_nothing_was_measured():
    assert continual_files.to_json(TWO) == SQUARE
    assert continual_files.parse("x", SQUARE) == TWO


def test_what_is_written_reads_back(tmp_path):
    folder = tmp_path / "runs"
    continual_files.write(folder, [TWO, OTHER])
    assert continual_files.read(folder) == (TWO, OTHER)
    assert continual_files.read(folder / "run1" / "summary_1.json") == (OTHER,)
    overall = continual_files.read(folder / "overall_results.json")
    assert overall == (forgetting.pool([TWO, OTHER]),)
    continual_files.write(folder, [OTHER, TWO])  # the same files anew
    assert continual_files.read(folder) == (OTHER, TWO)


def test_folders_of_several_arms_are_told_apart_and_never_averaged(tmp_path, capsys):
    run = tmp_path / "run"
    for name, own in (("merge", [TWO, OTHER]), ("replay", [OTHER])):
        continual_files.write(run / "continual" / name, own)
    names = [str(run / "continual" / name) for name in ("merge", "replay")]
    for path in (run, tmp_path):
        with pytest.raises(ValueError, match="must not be averaged; give one of") as e:
            continual_files.read(path)
        assert all(name in str(e.value) for name in names)
        assert continual_files.read_all(path) == [
            (names[0], (TWO, OTHER)),
            (names[1], (OTHER,)),
        ]
    assert continual.main([str(run)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [names[1], "+0.200", "+0.250"] in lines  # 0.5 - 0.3; 0.5 - 0.25
    (run / "continual/replay/run0/summary_0.json").unlink()  # overall_results stays
    assert len(continual_files.read_all(run)) == 2


def test_a_folder_of_an_overall_file_alone_is_one_run(tmp_path):
    path = tmp_path / "overall_results.json"
    path.write_text(json.dumps(SQUARE))
    assert continual_files.read(tmp_path) == (TWO,)


def test_one_sequence_a_file_has_no_deviations(tmp_path):
    single = Matrix(TWO.means)
    continual_files.write(tmp_path, [single, Matrix(OTHER.means)])
    value = json.loads((tmp_path / "run0" / "summary_0.json").read_text())
    assert value["std_over_sequences"] == [[0.0, 0.0]] * 3
    runs = continual_files.read(tmp_path)
    assert runs[0] == single
    assert forgetting.pool(runs).sequences == 2


def test_fewer_runs_are_not_written_among_older_ones(tmp_path):
    continual_files.write(tmp_path, [TWO, OTHER])
    with pytest.raises(ValueError, match=r"summary_1\.json: is of other runs than the"):
        continual_files.write(tmp_path, [OTHER])
    assert continual_files.read(tmp_path) == (TWO, OTHER)


def broken(**fields):
    return {**copy.deepcopy(SQUARE), **fields}


def cells(t, p, cell, key="mean_over_sequences"):
    value = copy.deepcopy(SQUARE)
    value[key][t][p] = cell
    return value


BAD = {
    "must be a JSON object with mean_over_sequences": [1],
    "n_sequences='4' must be a whole number": broken(n_sequences="4"),
    "n_sequences=True must be": broken(n_sequences=True),
    "n_sequences=None must be": broken(n_sequences=None),
    "sequences=0 must be at least 1": broken(n_sequences=0),
    "n_datapoints=8 must be the number of columns, 2": broken(n_datapoints=8),
    "mean_over_sequences must be a list of lists": broken(mean_over_sequences=[1]),
    "std_over_sequences must be a list of lists": broken(std_over_sequences=3),
    "mean_over_sequences, row 1: has 1 cells and must have 2": broken(
        mean_over_sequences=[[0.5, 0.2], [0.7], [0.4, 0.6]]
    ),
    "means have 0 rows": broken(mean_over_sequences=[]),
    "deviations have 2 rows and means 3": broken(std_over_sequences=[[0.1], [0.1]]),
    "row 1, passage 2: 0.3 must be 0, not learned yet": cells(1, 1, 0.3),
    "row 2, passage 1: None must be a finite number": cells(2, 0, None),
    "row 2, passage 1: '0.4' must be a finite number": cells(2, 0, "0.4"),
    "row 0, passage 2: True must be a finite number": cells(0, 1, True),
    "row 0, passage 2: inf must be a finite number": cells(0, 1, float("inf")),
    "means, row 0, passage 1: 50 must be in 0..1": cells(0, 0, 50),
    "deviations, row 0, passage 1: -0.1 must be": cells(
        0, 0, -0.1, "std_over_sequences"
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_malformed_files_are_named_in_one_line(message, tmp_path, capsys):
    path = tmp_path / "summary_1.json"
    path.write_text(json.dumps(BAD[message]))
    assert continual.main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: ")
    assert message.replace("50 must", "50.0 must") in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "nothing: no such file or folder"),
        (".", "must hold summary_*.json or overall_results.json"),
        ("text.json", "text.json: must be one JSON value"),
    ],
)
def test_paths_without_a_run_are_named_in_one_line(name, message, tmp_path, capsys):
    (tmp_path / "text.json").write_text("not JSON")
    assert continual.main([str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_command_prints_matrix_tables_and_comparison(tmp_path, capsys):
    both, one = tmp_path / "both", tmp_path / "one"
    continual_files.write(both, [TWO, OTHER])
    continual_files.write(one, [Matrix(((0.5,), (0.75,)))])
    assert continual.main([str(both), str(one)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["2", "0.300", "0.700"] in lines  # the matrix's last row
    # Means over both passages .5 and .5, un-edited .35 and .25; gains .15 and .25.
    assert "2 0.5000 0.0000 0.3000 +0.2000 0.0500 -".split() in lines
    # An edit later .4 and .2, un-edited .5 and .3: the same loss in both.
    assert "1 0.3000 0.1000 0.4000 -0.1000 0.0000 -".split() in lines
    assert "backward transfer -0.3000 0.0000".split() in lines
    assert "earlier passages, final / fresh 0.5000 -".split() in lines
    # One passage has nothing earlier.
    assert sum(line[:2] == ["backward", "transfer"] for line in lines) == 1
    assert "earlier passages, final / fresh - -".split() in lines
    assert [str(one), "+0.250", "-"] in lines
    assert [str(both), "+0.200", "+0.200"] in lines


# The files the SEAL authors released: 8 runs of 8 sequences of 8 passages.

TABLE = """
.331 .321 .276 .326 .330 .337 .287 .253
.383
.364 .499
.288 .434 .446
.272 .365 .366 .440
.235 .295 .281 .354 .376
.233 .287 .222 .278 .359 .449
.186 .229 .218 .246 .281 .356 .385
.189 .219 .164 .237 .221 .275 .335 .340
"""
# To 4 digits, of overall_results.json, whose own cells have 4.
CURVES = {
    "seen": ".3825 .4315 .3894 .3608 .3082 .3047 .2716 .2474",
    "seen_base": ".3309 .3262 .3093 .3134 .3167 .3200 .3153 .3075",
    "fresh": ".3825 .4988 .4462 .4397 .3764 .4489 .3846 .3397",
    "final": ".1894 .2190 .1641 .2372 .2206 .2745 .3349 .3397",
}
LAG = ".415 .367 .295 .251 .244 .209 .202 .189"
LAG_GAIN = ".107 .052 -.026 -.066 -.069 -.100 -.124 -.142"


def numbers(text):
    return [float(word) for word in text.split()]


@pytest.fixture(scope="module")
def released(seal_data):
    runs = continual_files.read(seal_data / RESULTS)
    [overall] = continual_files.read(seal_data / RESULTS / "overall_results.json")
    return runs, overall


def both_ways(released):
    """The pooled runs, and the file of their average: rounded to 4 digits."""
    runs, overall = released
    return forgetting.pool(runs), overall


def test_released_average_recomputes_from_the_runs(released):
    pooled, overall = both_ways(released)
    assert [run.sequences for run in released[0]] == [8] * 8
    assert pooled.sequences == overall.sequences == 64
    assert pooled.base_model == overall.base_model == "models/iter2"
    for ours, theirs in zip(pooled.means, overall.means, strict=True):
        assert ours == pytest.approx(theirs, abs=5.001e-5)


def test_released_deviation_is_the_plain_mean_over_runs(released):
    runs, overall = released
    for t, row in enumerate(overall.deviations):
        for p, stated in enumerate(row):
            mean = statistics.fmean(run.deviations[t][p] for run in runs)
            assert stated == pytest.approx(mean, abs=5.001e-5)


def test_released_matrix_is_the_published_table(released):
    table = [numbers(line) for line in TABLE.strip().splitlines()]
    for matrix, slack in zip(both_ways(released), (5e-5, 0), strict=True):
        for row, expected in zip(matrix.means, table, strict=True):
            assert row == pytest.approx(expected, abs=5.001e-4 + slack)


@pytest.mark.parametrize("name", CURVES)
def test_released_curves(released, name):
    # The runs' unrounded cells may round to the neighbour in the last digit.
    for matrix, slack in zip(both_ways(released), (5e-5, 0), strict=True):
        got = getattr(forgetting, name)(matrix)
        assert got == pytest.approx(numbers(CURVES[name]), abs=5.001e-5 + slack)


def test_released_lag_table(released):
    for matrix in both_ways(released):
        lag, base = forgetting.lag(matrix), forgetting.lag_base(matrix)
        assert lag == pytest.approx(numbers(LAG), abs=6e-4)
        gain = [x - y for x, y in zip(lag, base, strict=True)]
        assert gain == pytest.approx(numbers(LAG_GAIN), abs=6e-4)


def test_released_averages(released):
    for matrix in both_ways(released):
        assert statistics.fmean(matrix.means[0]) == pytest.approx(0.3075, abs=6e-5)
        assert forgetting.lag(matrix)[0] == pytest.approx(0.4146, abs=6e-5)
        assert forgetting.seen(matrix)[-1] == pytest.approx(0.2474, abs=6e-5)
        transfer = forgetting.backward_transfer(matrix)
        assert transfer == pytest.approx(-0.191, abs=5.1e-4)
        gain = forgetting.final_gain(matrix)
        assert gain == pytest.approx(-0.081, abs=5.1e-4)
        assert forgetting.crossing(matrix) == 5


def test_released_standard_errors_span_what_the_paper_says(released):
    errors = forgetting.standard_errors(released[1])
    assert errors is not None
    cells = [cell for row in errors for cell in row]
    assert min(cells) == pytest.approx(0.021, abs=5.1e-4)
    assert max(cells) == pytest.approx(0.041, abs=5.1e-4)


def test_released_crossing_is_within_its_noise_until_passage_7(released):
    def gain(matrix):
        pairs = zip(
            forgetting.seen(matrix),
            forgetting.seen_base(matrix),
            strict=True,
        )
        return [now - base for now, base in pairs]

    found = forgetting.estimates(released[0], gain)
    assert [mean < -2 * (se or 0) for mean, se in found] == [False] * 6 + [True] * 2


def test_released_files_print(seal_data, capsys):
    assert continual.main([str(seal_data / RESULTS)]) == 0
    out = capsys.readouterr().out
    assert "files 8, sequences 64, passages in each 8; models/iter2 on" in out
    assert "falls below the un-edited model at 5" in out
