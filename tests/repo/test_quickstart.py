"""docs/quickstart.ipynb runs from its first cell to its last and shows what it says."""

import re

import nbclient
import nbformat
import pages
import pytest

PATH = pages.ROOT / "docs" / "quickstart.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(PATH, as_version=4)


def printed(notebook):
    """What the cells of code print; nothing goes to standard error."""
    outputs = [c.outputs for c in notebook.cells if c.cell_type == "code"]
    assert {o.get("name") for cell in outputs for o in cell} == {"stdout"}
    return ["".join(output.text for output in cell) for cell in outputs]


def check(cells):
    """Edits differ in worth, and the best teaches what the passage alone does not."""
    *_, counts, changes, gained = [text for text in cells if text]
    nothing, passage, *edits = map(int, re.findall(r"(\d) of 6$", counts, re.M))
    assert (len(edits), nothing) == (6, 0)
    assert max(edits) >= passage + 3 and min(edits) < max(edits)
    rows = re.findall(r"(-\d+\.\d\d) +(-\d+\.\d\d)   ", changes)
    learned = [float(after) > -0.2 > float(before) for before, after in rows]
    assert len(rows) == 6 and sum(learned) >= 3
    assert float(gained.split()[0]) > 5


def test_it_is_kept_as_it_ran(notebook):
    nbformat.validate(notebook)
    assert PATH.stat().st_size < 30_000
    assert [cell.metadata for cell in notebook.cells if cell.metadata] == []
    check(printed(notebook))


def test_it_runs(notebook, tmp_path, child_env, monkeypatch):
    for key, value in child_env.items():  # The kernel's.
        monkeypatch.setenv(key, value)
    client = nbclient.NotebookClient(
        notebook,
        timeout=900,
        startup_timeout=300,
        resources={"metadata": {"path": str(tmp_path)}},
    )
    check(printed(client.execute()))
