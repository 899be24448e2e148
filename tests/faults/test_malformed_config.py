"""Malformed configs end in one line, and leave nothing behind."""

import malformed_config
import pytest

FAST = malformed_config.stratified(270)
PARTS = 8

# So config_flags reads a config file.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture(autouse=True)
def data(tmp_path_factory, monkeypatch):
    folder = malformed_config.write_data(tmp_path_factory.mktemp("data"))
    monkeypatch.setenv("SEAL_DATA", str(folder))


def test_every_config_and_way_has_its_cases():
    every = malformed_config.cases()
    assert len(every) > 15_000 and len({case.way for case in every}) > 25
    strata = {(case.config, case.way) for case in every if case.way != "most"}
    missed = strata - {(case.config, case.way) for case in FAST}
    assert not missed, missed


def faults(cases, folder):
    found = [(case, malformed_config.fault(case, folder / "run")) for case in cases]
    return [f"{case}: {wrong}" for case, wrong in found if wrong]


def test_a_sample_ends_in_one_line_and_writes_nothing(tmp_path):
    assert faults(FAST, tmp_path) == []


def test_a_sample_on_the_command_line_ends_in_one_line():
    cases = malformed_config.flag_cases()[::90]
    found = [(case, malformed_config.flag_fault(case)) for case in cases]
    assert [f"{case}: {wrong}" for case, wrong in found if wrong] == []


@pytest.mark.parametrize(
    ("config", "path"),
    [
        *((name, "task.name") for name in ("arc", "own", "squad", "lmsi", "deploy")),
        ("squad", "grade.name"),
        ("squad", "select.reward"),
    ],
)
def test_a_text_with_a_colon_is_told_by_its_own_key(config, path):
    """What could name code of one's own, and is no such name by its form."""
    for text in ("{'a': 1}", "a: b", "mine.py:Task"):
        case = malformed_config.Case(config, path, "flag", text, legal=True)
        assert malformed_config.flag_fault(case) is None


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_all_end_in_one_line_and_write_nothing(part, tmp_path):
    assert faults(malformed_config.cases()[part::PARTS], tmp_path) == []


@pytest.mark.slow
def test_all_on_the_command_line_end_in_one_line():
    cases = malformed_config.flag_cases()
    found = [(case, malformed_config.flag_fault(case)) for case in cases]
    assert [f"{case}: {wrong}" for case, wrong in found if wrong] == []
