"""What in a compiled program depends on the order in which threads arrive. No jax."""

import hlo_text

# Combining in another order gives the same bits.
_COMMUTES_EXACTLY = ("maximum", "minimum", "and", "or")


def unordered_scatters(text: str) -> list[str]:
    """Scatters of floating-point numbers whose result depends on an order, a line each.

    Where two updates may fall on one place, a GPU's threads add them as they arrive.
    Indices that are sorted do not prevent that there: a run of equal ones is cut over
    threads. So only `unique_indices` makes a scatter ordered, or a single update, or a
    combination that rounds nothing (`max`). One that `sets` has no order either: of two
    updates of one place either may stay.

    Args:
      text: `compiled.as_text()` for any device.
    """
    program = hlo_text.parse(text)
    found = []
    for where in program.computations.values():
        for one in where:
            how = _unordered(program, where, one)
            if how and any(shape.is_float for shape in one.shapes):
                shapes = ", ".join(map(str, one.shapes))
                found.append(
                    f"%{one.name} {how} {shapes} in %{where.name}: {one.op_name}"
                )
    return found


def _unordered(
    program: hlo_text.Program,
    where: hlo_text.Computation,
    one: hlo_text.Instruction,
) -> str | None:
    """What an instruction does in an order of its own, "adds to" or "sets"."""
    if one.op == "select-and-scatter":
        return "adds to"
    if one.op != "scatter" or one.flag("unique_indices"):
        return None
    combine = program[one.called("to_apply") or ""].root.op
    updates = where.operands(one)[-1].shapes[0].dims
    window = one.numbers("update_window_dims")
    several = any(n > 1 for axis, n in enumerate(updates) if axis not in window)
    if combine in _COMMUTES_EXACTLY or not several:
        return None
    return "sets" if combine == "parameter" else "adds to"
