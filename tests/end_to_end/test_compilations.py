"""A run compiles each of its programs once, and few of them."""

import collections

import compilations
import tiny_model

from seal_jax import train
from seal_jax.rounds import grading

MOST = 20


def test_two_rounds_compile_few_programs_and_none_twice(tmp_path, monkeypatch):
    """Whatever is merged, restored, kept or left over from round to round."""
    monkeypatch.setattr(grading, "scorer", lambda cfg, at: tiny_model.toss)
    # One layer is enough, and no other test has compiled for it in this process.
    model = tiny_model.write(tmp_path / "model", layers=1)
    # Pools that are not full, edits to imitate that add up from round to round, and the
    # rounds of the control before those of the ladder.
    values = tiny_model.values(
        model,
        scale__rounds=2,
        scale__passages=3,
        inner__pool=4,
        imitate__data="accumulate",
        ladder=("base", "in_context", "passage_only", "self_edits", "random_kept"),
    )
    with compilations.recorded() as programs:
        summary = train.run(values, tmp_path / "run")
    assert summary["compile"]["programs"] == len(programs)
    counts = collections.Counter(programs)
    assert [(p.name, p.arguments) for p, n in counts.items() if n > 1] == []
    names = [program.name for program in programs]
    assert {"run_block", "train_step", "decode"} <= set(names)
    assert len(names) <= MOST, " ".join(names)
    assert [line["kept"] for line in summary["rounds"]] == [3, 3]
