"""The first quarter of an hour on a GPU: what is worth most first, nothing unbounded.

    benchmarks/quarter_hour.sh [--out FOLDER]           at most 540 seconds
    benchmarks/quarter_hour.sh --rest [--out FOLDER]    the second command, likewise
    benchmarks/quarter_hour.sh --small                  small shapes, for a CPU

Every step is a benchmark of this folder, a process of its own that is ended when its
time is over. What it says is in FOLDER as soon as it ends: `NAME.log` is what it
printed, and `quarter_hour.json` has the result of each so far, or why there is none. A
step that fails ends nothing but itself. At the end the measured step is held against
its model, and the constants are named that the measurement corrects.

PEFT needs an interpreter with torch, transformers and peft: $SEAL_TORCH_PYTHON, else
this one. Compiled programs are kept in FOLDER/programs for a second try.
"""

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import common
import floor
import hlo_cost
import roofline

BUDGET = 540.0
# A step is not begun with less than this left.
LEAST = 5.0


@dataclasses.dataclass(frozen=True)
class Step:
    """A benchmark, its flags on a GPU and with small shapes, and its bound in seconds.

    In a flag `{out}` is the folder. `torch`: it runs under $SEAL_TORCH_PYTHON.
    """

    name: str
    seconds: float
    file: str
    flags: str
    small: str
    torch: bool = False

    def argv(self, out: Path, *, small: bool) -> list[str]:
        """The command, but for the interpreter."""
        flags = (self.small if small else self.flags).split()
        made = [flag.format(out=out) for flag in flags]
        return [str(common.ROOT / "benchmarks" / self.file), *made, self.result(out)]

    def result(self, out: Path) -> str:
        return f"--out={out / f'{self.name}.json'}"


TINY_PLAN = "--rank 4 --row-tokens 64 --step-tokens 64 --slots 4 --active 3"
TINY_STEP = f"--dtype float32 --adapters 12 --blocks 1 --scale-lengths 0.1 {TINY_PLAN}"
TINY_ROUND = "--shape tiny,width=64,heads=2,kv_heads=2,head_dim=32,layers=1"

# In order of value. The bounds sum to less than BUDGET.
FIRST = (
    Step(
        "ceilings",
        40,
        "ceilings.py",
        "",
        "--size 64 --shape tiny --tokens 32 --dtype float32 --copy-mib 1 --repeats 1",
    ),
    Step(
        "packed_step",
        180,
        "packed_step.py",
        "--shape qwen2.5-7b --text={out}/packed_step.txt",
        f"--shape tiny {TINY_STEP} --text={{out}}/packed_step.txt",
    ),
    Step(
        "attention",
        60,
        "attention.py",
        "--cases squad arc --implementations auto tokamax triton xla "
        "--dtype bfloat16 --repeats 3",
        "--cases tiny --implementations xla --repeats 1",
    ),
    Step(
        "lora_ops",
        80,
        "lora_ops.py",
        "--cases qwen2.5-7b/q/packed --repeats 3",
        "--quick --cases decode --repeats 1 --seconds 0.001 --peak-size 64",
    ),
    Step(
        "generate",
        80,
        "generate.py",
        "--shape qwen2.5-7b --dtype bfloat16 --repeats 3",
        "--shape tiny --rows 4 --per-page 2 --prompt 5 --tokens 3 --adapters 0 2 "
        "--rank 2 --repeats 1 --copy-mib 1",
    ),
    Step(
        "peft",
        45,
        "peft_baseline.py",
        "--shape qwen2.5-7b --mode unpadded --adapters 1 --max-steps 20 --repeats 1",
        "--shape tiny --mode unpadded --adapters 1 --max-steps 1 --repeats 1 --rank 2",
        torch=True,
    ),
    Step(
        "peft_padded",
        45,
        "peft_baseline.py",
        "--shape qwen2.5-7b --mode padded --adapters 1 --max-steps 5 --repeats 1",
        "--shape tiny --mode padded --adapters 1 --max-steps 1 --repeats 1 --rank 2 "
        "--pad-to 64",
        torch=True,
    ),
)
REST = (
    Step(
        "round_sixth",
        240,
        "round.py",
        "--shape qwen2.5-7b --articles 8",
        f"{TINY_ROUND} --articles 1 --edits 1 --seeds 1 --epochs 1 "
        "--scale-lengths 0.02 --set inner.row_tokens=64 --set inner.step_tokens=64 "
        "--set inner.slots=2 --set inner.active=1 --set inner.lora.rank=2 "
        "--set imitate.lora.rank=2 --set imitate.batch=1 "
        "--set propose.batch=2 --set propose.max_tokens=16 "
        "--set answer.batch=12 --set answer.max_tokens=4",
    ),
    # The same step by XLA's own products, in chunks.
    Step(
        "packed_step_plain",
        110,
        "packed_step.py",
        "--shape qwen2.5-7b --kernel plain",
        f"--shape tiny --kernel plain {TINY_STEP}",
    ),
    Step(
        "packed_step_all",
        90,
        "packed_step.py",
        "--shape qwen2.5-7b --targets "
        "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj --step-tokens 1024 "
        "--slots 24 --active 16 --adapters 24 --blocks 1",
        f"--shape tiny {TINY_STEP}",
    ),
    Step(
        "lora_ops_all",
        90,
        "lora_ops.py",
        "--cases qwen2.5-7b --repeats 3",
        "--quick --cases decode --repeats 1 --seconds 0.001 --peak-size 64",
    ),
)

# Of a step: exit status and what it printed. None: its time was over.
type Ended = tuple[int | None, str]
type Start = Callable[[Step, list[str], float], Ended]


def process(out: Path) -> Start:
    """Runs a step in a process of its own, ended with all that it started."""
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    roots = [common.ROOT, common.ROOT / "kernels", env.get("PYTHONPATH", "")]
    env["PYTHONPATH"] = os.pathsep.join(str(root) for root in roots if root)
    env.setdefault("JAX_COMPILATION_CACHE_DIR", str(out / "programs"))
    env.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")

    def start(step: Step, argv: list[str], seconds: float) -> Ended:
        own = os.environ.get("SEAL_TORCH_PYTHON") if step.torch else None
        log = out / f"{step.name}.log"
        with log.open("w") as file:
            child = subprocess.Popen(
                [own or sys.executable, *argv],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )
            try:
                status = child.wait(seconds)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.wait()
        return status, log.read_text(errors="replace")

    return start


def run_steps(
    steps: Sequence[Step],
    out: Path,
    start: Start,
    *,
    small: bool,
    budget: float = BUDGET,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Runs all steps, none past the budget; writes what there is after each.

    Returns:
      Of each step its result, or `failed` with the reason in a line; and its seconds.
    """
    begin, made = clock(), {}
    for step in steps:
        left = budget - (clock() - begin)
        if left < LEAST:
            made[step.name] = {"failed": f"{left:.0f} s were left", "wall_seconds": 0.0}
            continue
        bound, at = min(step.seconds, left), clock()
        status, printed = start(step, step.argv(out, small=small), bound)
        outcome = outcome_of(status, printed, bound)
        made[step.name] = {**outcome, "wall_seconds": clock() - at}
        write(out, made)
        print(line(step.name, made[step.name]), flush=True)
    write(out, made)
    return made


def outcome_of(status: int | None, printed: str, bound: float) -> dict[str, Any]:
    """A step's own result, or why it has none."""
    lines = [one for one in printed.splitlines() if one.strip()] or ["nothing printed"]
    if status is None:
        return {"failed": f"not done in {bound:.0f} s: {lines[-1][:300]}"}
    if status != 0:
        return {"failed": f"exit status {status}: {lines[-1][:300]}"}
    try:
        return json.loads(lines[-1])
    except json.JSONDecodeError:
        return {"failed": f"its last line is no JSON: {lines[-1][:300]}"}


def line(name: str, made: Mapping[str, Any]) -> str:
    said = made.get("failed", "done")
    return f"{name:<16}{made['wall_seconds']:>6.1f} s  {said}"


def write(out: Path, made: Mapping[str, Any]) -> None:
    text = json.dumps(made, indent=2, sort_keys=True)
    (out / "quarter_hour.json").write_text(text + "\n", encoding="utf-8")


# Truth and model


def corrected(ceilings: Mapping[str, Any]) -> roofline.Device:
    """The modelled H200 with the constants that were measured."""
    return dataclasses.replace(
        roofline.h200(),
        kind=ceilings["device"],
        flop=ceilings["flops_per_s"],
        bytes=ceilings["bytes_per_s"],
        launch=ceilings["launch_seconds"],
    )


def compared(made: Mapping[str, Any], out: Path) -> list[str]:
    """Lines that hold what was measured against the model, as far as there is both."""
    said = []
    ceilings, step = (made.get(name, {}) for name in ("ceilings", "packed_step"))
    if "flops_per_s" in ceilings:
        for name, path, assumed in (
            ("attained_flops", "floor.ATTAINED_FLOPS", floor.ATTAINED_FLOPS),
            ("attained_bytes", "floor.ATTAINED_BYTES", floor.ATTAINED_BYTES),
            ("launch_seconds", "roofline.LAUNCH", roofline.LAUNCH),
        ):
            value = ceilings[name]
            if value is None:
                said.append(f"{path}: {assumed:g}; this device's peak is not known")
                continue
            said.append(f"{path}: {assumed:g} is assumed, {value:.3g} was measured")
    if "step_seconds" in step:
        truth, model = step["step_seconds"], step["modelled"]["seconds"]
        said.append(_ratio("packed step as modelled", truth, model))
        if not step["same_bits"]:
            said.append("packed step: two runs DIFFER in their bits")
        text = out / "packed_step.txt"
        if "flops_per_s" in ceilings and text.is_file():
            told = hlo_cost.Told(
                loops={
                    r"run_block\)/while/body/while$": step["turnover"],
                    r"run_block\)/while$": 1,
                    **step.get("loops", {}),
                }
            )
            again = roofline.report(
                text.read_text(encoding="utf-8"), told, corrected(ceilings)
            )
            said.append(
                _ratio("... with what was measured", truth, again.total.seconds)
            )
    return said


def _ratio(what: str, truth: float, model: float) -> str:
    return (
        f"{what}: {1e3 * truth:.3f} ms measured, {1e3 * model:.3f} ms modelled, ratio "
        f"{truth / model:.3f}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its status is 1 if a step failed."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/quarter_hour.sh",
        description="Measures what is worth most in a quarter of an hour on a GPU.",
    )
    add = parser.add_argument
    add("--rest", action="store_true", help="what the first command had no time for")
    add("--small", action="store_true", help="small shapes, for a CPU")
    add("--out", type=Path, default=Path("runs/quarter_hour"), metavar="FOLDER")
    args = parser.parse_args(argv)
    # So that a step that runs is ended with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    out = (args.out / "rest" if args.rest else args.out).absolute()
    out.mkdir(parents=True, exist_ok=True)
    made = run_steps(REST if args.rest else FIRST, out, process(out), small=args.small)
    return report(made, out)


def report(made: Mapping[str, Any], out: Path) -> int:
    """Prints what was learnt; the exit status."""
    said = compared(made, out)
    print(*said, f"written: {out / 'quarter_hour.json'}", sep="\n")
    write(out, {**made, "compared": said})
    return int(any("failed" in one for one in made.values()))


if __name__ == "__main__":
    raise SystemExit(main())
