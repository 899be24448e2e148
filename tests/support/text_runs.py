"""Rows of self-edits, for the tests that read texts."""

from seal_jax.runtime import files

PASSAGE = "A b, c. D e!"


def row(text, **more):
    passage = {"passage_id": "p", "title": "T", "passage": PASSAGE}
    return {**passage, "prompt": f"Say.\nT\n{PASSAGE}\n\nSo:\n", "text": text, **more}


def write_run(path):
    """A workdir of two rounds about one passage."""
    path.mkdir()
    rows = [row("a b c", round=1), row("x y z", round=1), row("x y z", round=2)]
    files.write_jsonl(path / "edits.jsonl", rows)
    return path
