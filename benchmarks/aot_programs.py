"""The programs of real sizes, compiled for an H200 that is not here, and their cost.

    .venv-aot/bin/python benchmarks/aot_programs.py packed_7b_qv ... [--text FOLDER]

Needs jax's CUDA plugin (`make test-aot` installs it), but no GPU and no CUDA. Prints a
line of JSON for each program: XLA's own count of its memory, and what `roofline.py`
makes of its text. All of it is modelled, none measured. To save time two and four
layers are compiled, and their figures continued to the model's own depth.

`PROGRAMS` is the one place that says which programs there are: their sizes are those of
the configs, and each comes with the matmul FLOP that it must do (`matmul_flop.py`).
`make test-aot` holds some of them to `tests/aot/bounds.json`, which `modelled_round.py`
writes.
"""

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Before jax is imported: the plugin would look for a driver.
os.environ["JAX_PLATFORMS"] = "cpu"

import aot_generation
import aot_training
import common
import hlo_cost
import jax
import pretend_h200
import roofline
from aot_common import Program, arch_of, in_float8
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from seal_jax.models import decoder

AOT = common.ROOT / "tests" / "aot"
TARGET = AOT / "h200.txtpb"
# Layers of what is compiled. Every layer adds the same: of the packed step at 7B what
# follows from 2 and 4 layers is, of 28, the FLOP, the temporaries and the memory to the
# byte, and the bytes moved, the kernels and the time to within 0.5 %.
FEW = (2, 4)


# Loops around all that a program does again and again.
OUTER = (aot_training.STEPS,)


# All programs


class Named(NamedTuple):
    """A shape of `common.SHAPES`, and the program on it; `make test-aot` holds it."""

    shape: str
    build: Callable[[decoder.Arch], Program]
    tested: bool = True


SEVEN_B, ONE_B = "qwen2.5-7b", "llama-3.2-1b"
# Of the packed ones, by the published rounds' plans: adapters that begin in a step,
# chunks of tokens with loss, and adapters that have lines in one.
PROGRAMS = {
    "packed_7b_qv": Named(
        SEVEN_B,
        lambda arch: aot_training.packed_step(
            arch,
            aot_training.squad_engine({}),
            turnover=0.75,
            head_chunks=8,
            span=56,
            adapters=68.1,
        ),
    ),
    "packed_7b_all": Named(
        SEVEN_B,
        lambda arch: aot_training.packed_step(
            arch,
            aot_training.squad_engine(aot_training.ALL_SEVEN),
            turnover=0.38,
            head_chunks=4,
            span=56,
            adapters=33.9,
        ),
    ),
    "packed_7b_frozen": Named(
        SEVEN_B,
        lambda arch: aot_training.packed_step(
            arch,
            aot_training.continual_engine(),
            turnover=0.75,
            head_chunks=8,
            span=56,
            adapters=68.1,
        ),
    ),
    "packed_7b_taught": Named(
        SEVEN_B,
        lambda arch: aot_training.packed_step(
            arch,
            aot_training.taught_engine(),
            turnover=0.75,
            head_chunks=8,
            span=56,
            adapters=68.1,
        ),
        tested=False,
    ),
    "packed_1b_arc": Named(
        ONE_B,
        lambda arch: aot_training.packed_step(
            arch,
            aot_training.arc_engine(),
            turnover=0.03,
            head_chunks=11,
            span=900,
            adapters=6.1,
            lines=2,
        ),
    ),
    # Fifteen edits of each of 50 passages.
    "influence_7b_qv": Named(
        SEVEN_B,
        lambda arch: aot_training.influence_step(
            arch,
            aot_training.squad_engine({}),
            targets=50,
            most=15,
            head_chunks=8,
            span=56,
        ),
        tested=False,
    ),
    "imitate_7b": Named(SEVEN_B, aot_training.squad_imitation),
    "prefill_7b": Named(
        SEVEN_B,
        lambda arch: aot_generation.prefill(aot_generation.squad_proposals(arch)),
    ),
    "prefill_7b_adapters": Named(
        SEVEN_B, lambda arch: aot_generation.prefill(aot_generation.squad_answers(arch))
    ),
    "decode_7b": Named(
        SEVEN_B,
        lambda arch: aot_generation.decode(aot_generation.squad_proposals(arch)),
    ),
    "decode_7b_adapters": Named(
        SEVEN_B, lambda arch: aot_generation.decode(aot_generation.squad_answers(arch))
    ),
    "imitate_1b": Named(ONE_B, aot_training.arc_imitation, tested=False),
    "prefill_1b_adapters": Named(
        ONE_B,
        lambda arch: aot_generation.prefill(aot_generation.arc_answers(arch)),
        tested=False,
    ),
    "decode_1b_adapters": Named(
        ONE_B,
        lambda arch: aot_generation.decode(aot_generation.arc_answers(arch)),
        tested=False,
    ),
}
# Those of a round at 7B on a base in float8; the training step is tested.
PROGRAMS |= {
    f"{name}_float8": Named(
        PROGRAMS[name].shape,
        in_float8(PROGRAMS[name].build),
        tested=name == "packed_7b_qv",
    )
    for name in (
        "packed_7b_qv",
        "imitate_7b",
        "prefill_7b",
        "prefill_7b_adapters",
        "decode_7b",
        "decode_7b_adapters",
    )
}
TESTED = [name for name, one in PROGRAMS.items() if one.tested]


# Compiling


def compiled(program: Program) -> jax.stages.Compiled:
    """The program as an H200 would run it."""
    topology = topologies.get_topology_desc(
        platform="cuda", target_config=TARGET.read_text(), topology="1x1x1"
    )
    mesh = topologies.make_mesh(topology, (1,), ("device",))
    placed = NamedSharding(mesh, PartitionSpec())
    args = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed), program.args
    )
    jitted = jax.jit(program.run, donate_argnums=program.donated, out_shardings=placed)
    pretend_h200.begin()
    # The mesh says for which device kernels are chosen.
    with jax.set_mesh(mesh):
        return jitted.lower(*args).compile(compiler_options=dict(program.options))


def figures(
    name: str, *, layers: int | None = None, text_to: Path | None = None
) -> dict[str, Any]:
    """Compiles a program of that name; what XLA and the roofline say of it.

    Args:
      name: of `PROGRAMS`.
      layers: that the model has; None: two small numbers of them are compiled, and
        what they come to is continued to the model's own (`FEW`).
      text_to: a folder for the text of what is compiled.
    """
    named = PROGRAMS[name]
    arch = arch_of(named.shape)
    if layers is not None:
        return _of_layers(name, dataclasses.replace(arch, layers=layers), text_to)
    few, more = (
        _of_layers(name, dataclasses.replace(arch, layers=count), text_to)
        for count in FEW
    )
    made = continued(few, more, (arch.layers - FEW[0]) / (FEW[1] - FEW[0]))
    return {**made, "layers": arch.layers, "compiled_layers": list(FEW)}


def continued(few: Any, more: Any, steps: float) -> Any:
    """`few + steps * (more - few)` of the numbers in two results of the same form."""
    if isinstance(few, dict):
        return {key: continued(few[key], more[key], steps) for key in few}
    if isinstance(few, (int, float)) and not isinstance(few, bool):
        return few + steps * (more - few)
    return more


def _of_layers(name: str, arch: decoder.Arch, text_to: Path | None) -> dict[str, Any]:
    program = PROGRAMS[name].build(arch)
    begin = time.monotonic()
    made = compiled(program)
    seconds = time.monotonic() - begin
    used, text = made.memory_analysis(), made.as_text()
    if text_to is not None:
        file = text_to / f"{name}-{arch.layers}.txt"
        file.write_text(text, encoding="utf-8")
    whole = (
        used.argument_size_in_bytes
        + used.output_size_in_bytes
        - used.alias_size_in_bytes
        + used.temp_size_in_bytes
    )
    widths = program.arch.linears().values()
    made_of, loops = (f(text, program.told) for f in (roofline.report, loop_costs))
    outer = next((loops[name] for name in OUTER if name in loops), None)
    once = outer and made_of.total.seconds - outer["trips"] * outer["seconds"]
    return {
        "program": name,
        "layers": arch.layers,
        "per": program.per,
        # What must be done, and what the text shows to be, attention's kernels aside.
        "analytic_flop": program.flop,
        "base_flop": program.base_flop,
        "loops": loops,
        # Of what is outside of the loop over steps.
        "once_seconds": once or 0.0,
        "counted_flop": made_of.cost(k for k in made_of.kernels if not k.foreign).flop,
        "float8_flop": made_of.cost(
            k for k in made_of.kernels if k.dtype.startswith("f8")
        ).flop,
        **roofline.summary(made_of),
        "temporary_bytes": used.temp_size_in_bytes,
        "output_bytes": used.output_size_in_bytes,
        "donated_bytes": used.alias_size_in_bytes,
        "total_bytes": whole,
        # What nothing should make: frozen weights in float32, all logits at once.
        "wide_weights": sum(f"f32[{d},{f}]" in text for d, f in widths),
        "all_logits": f"f32[{program.tokens},{arch.vocab}]" in text,
        "float8_calls": text.count('custom_call_target="__cublas$lt$matmul$f8"'),
        "unordered_scatters": roofline.unordered_scatters(text),
        "compile_seconds": seconds,
        "jax": jax.__version__,
    }


def loop_costs(text: str, told: hlo_cost.Told) -> dict[str, dict[str, float]]:
    """Of each loop whose trips were told: how many, and seconds of one more."""

    def seconds(loops: Mapping[str, float]) -> float:
        changed = dataclasses.replace(told, loops=loops)
        return roofline.report(text, changed).total.seconds

    whole = seconds(told.loops)
    return {
        loop: {
            "trips": trips,
            "seconds": seconds({**told.loops, loop: trips + 1}) - whole,
        }
        for loop, trips in told.loops.items()
    }


# The command


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/aot_programs.py",
        description="Compiles programs for an H200 that is not here.",
    )
    add = parser.add_argument
    add("names", nargs="+", metavar="NAME", help=f"of {', '.join(PROGRAMS)}")
    add(
        "--layers",
        type=int,
        help=f"compile so many; default: {FEW[0]} and {FEW[1]}, continued to all",
    )
    add("--text", type=Path, metavar="FOLDER", help="write the programs' texts there")
    args = parser.parse_args(argv)
    unknown = set(args.names) - set(PROGRAMS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: must be of {', '.join(PROGRAMS)}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    for name in args.names:
        made = figures(name, layers=args.layers, text_to=args.text)
        print(json.dumps(made), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
