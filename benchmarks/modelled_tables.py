"""The modelled rounds as tables: for the command, and for docs/engine.md."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common
import roofline

from seal_jax.runtime import formatting

PAGE = common.ROOT / "docs" / "engine.md"
BEGIN, END = "<!-- modelled:begin -->\n", "<!-- modelled:end -->\n"
PHASES = (
    *("propose", "adapt", "evaluate", "imitate"),
    *("heldout_propose", "heldout_adapt", "heldout_evaluate"),
)
TITLES = {
    "7b_qv": "7B, q and v",
    "7b_qv_float8": "7B, q and v, base in float8",
    "7b_all": "7B, all seven",
    "1b_arc": "1B, few-shot",
}


def table(result: Mapping[str, Any]) -> str:
    """The result for reading."""
    rows = []
    for name, made in result["rounds"].items():
        for phase, one in [*made["phases"].items(), ("all", made)]:
            rows.append(
                (
                    name,
                    phase,
                    formatting.number(one["modelled_seconds"], digits=1),
                    formatting.number(one["floor"], digits=1),
                    formatting.number(one["ratio"], digits=2),
                )
            )
    head = ("round", "phase", "modelled s", "floor s", "ratio")
    constants = result["constants"]
    return (
        f"{formatting.ruled(head, rows)}\n\nmodelled for one {constants['kind']}, not "
        f"measured: jax {result['jax']}, {constants['flop'] / 1e12:.0f} TFLOP/s, "
        f"{constants['bytes'] / 1e12:.2f} TB/s, {1e6 * constants['launch']:g} us a "
        "kernel"
    )


def markdown(result: Mapping[str, Any]) -> str:
    """The tables of the page: rounds by phase, and a step of each program."""
    lines = [
        "| round | phase | modelled, s | floor, s | ratio |",
        "|---|---|---|---|---|",
    ]
    # A result that was written has its keys in alphabetical order.
    for name in (name for name in TITLES if name in result["rounds"]):
        made = result["rounds"][name]
        rows = [
            (phase, made["phases"][phase])
            for phase in PHASES
            if phase in made["phases"]
        ]
        for phase, one in [*rows, ("**all**", made)]:
            lines.append(
                f"| {TITLES[name]} | {phase} | {one['modelled_seconds']:.1f} | "
                f"{one['floor']:.1f} | {one['ratio']:.2f} |"
            )
    lines += ["", f"| ms | {' | '.join(roofline.CATEGORIES)} | all |"]
    lines.append("|---" * (2 + len(roofline.CATEGORIES)) + "|")
    for name, made in sorted(result["programs"].items()):
        parts = [made["by_category"][part]["seconds"] for part in roofline.CATEGORIES]
        cells = " | ".join(f"{1e3 * part:z.1f}" for part in (*parts, made["seconds"]))
        lines.append(f"| `{name}`, {made['per']} | {cells} |")
    constants = result["constants"]
    lines += [
        "",
        f"Constants: {constants['flop'] / 1e12:.0f} TFLOP/s, "
        f"{constants['bytes'] / 1e12:.2f} TB/s, {1e6 * constants['launch']:g} us a "
        f"kernel; jax {result['jax']}.",
    ]
    return "\n".join(lines) + "\n"


def write_page(result: Mapping[str, Any], page: Path = PAGE) -> None:
    """Puts the tables between the page's marks."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}{markdown(result)}{END}{after}", encoding="utf-8")
