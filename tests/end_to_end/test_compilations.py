"""A run compiles each of its programs once, and few of them."""

import collections
import contextlib

import compilations
import tiny_model

from seal_jax import train
from seal_jax.rounds import grading
from seal_jax.runtime import compiling

MOST = 20
# Those that no guess is made of.
LATER = {"run_block", "_empty_state", "add_to_layer", "_fold"}


def test_two_rounds_compile_few_programs_and_none_twice(tmp_path, monkeypatch):
    """Whatever is merged, restored, kept or left over from round to round.

    All but a few were compiled beside the inner loop's, and none that nobody ran. A run
    that finds them is as one that compiles none ahead.
    """
    compilers = []
    beside = compiling.beside

    @contextlib.contextmanager
    def watched():
        with beside() as compiler:
            compilers.append(compiler)
            yield compiler

    monkeypatch.setattr(compiling, "beside", watched)
    monkeypatch.setattr(compiling, "pays", lambda: True)
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
    ahead = sum(len(compiler.compiling) for compiler in compilers)
    assert ahead == len([name for name in names if name not in LATER])
    monkeypatch.setattr(compiling, "pays", lambda: False)
    with compilations.recorded() as programs:
        again = train.run(values, tmp_path / "again")
    assert [program.name for program in programs] == []
    for told in (summary, again):
        del told["seconds"], told["compile"]
    assert again == summary
