"""How well rewards agree with the true one, as rows of text."""

from seal_jax.analysis.agreement import AllRewards
from seal_jax.runtime import formatting


def title(measured: AllRewards) -> str:
    """The name, and which seeds count if not all."""
    return f"{measured.name}{formatting.raced(measured.raced)}"


def table(measured: AllRewards) -> list[tuple[str, ...]]:
    """A heading and a row per reward, as text; see `commands.agreement`."""
    rows: list[tuple[str, ...]] = [
        (
            title(measured),
            "passages",
            "pooled",
            "95 %",
            "mean ± se",
            "rank ± se",
            "finds best ± se",
            "by chance",
            "pick ± se",
            "mean",
            "best",
            "captured",
            "95 %",
        )
    ]
    for name, a in measured.agreements.items():
        if a is None:
            rows.append((name, "0", *[formatting.MISSING] * 11))
            continue
        rows.append(
            (
                name,
                formatting.count(a.passages),
                formatting.signed(a.pooled),
                formatting.span(*a.pooled_interval, digits=2),
                formatting.plus_minus(*a.pearson),
                formatting.plus_minus(*a.spearman),
                formatting.plus_minus(*a.found),
                formatting.number(a.chance),
                formatting.plus_minus(*a.pick),
                formatting.number(a.mean),
                formatting.number(a.best),
                formatting.percent(a.captured, digits=0),
                formatting.percents(*a.captured_interval),
            )
        )
    return rows
