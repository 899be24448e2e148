"""Tables of `inner_rules.py`, in Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rule_figures import COUNTS, CPU_SECONDS, REFERENCES, SINGLE, STREAMS

from seal_jax.runtime import formatting


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _mean(found: Mapping[str, Any] | None) -> str:
    return formatting.plus_minus(found["mean"], found["se"]) if found else ""


def _difference(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    low, high = formatting.signed(found["low"]), formatting.signed(found["high"])
    return f"{formatting.signed(found['diff'])} ({low} to {high})"


def table(result: Mapping[str, Any]) -> str:
    """Tables in Markdown: rates tried; for each criterion figures, leads and costs."""
    tried = result["choice"]["tried"]
    rates = list(next(iter(tried.values())))
    number = formatting.number
    parts = [
        markdown(
            ("own / general at", *rates),
            [
                (
                    rule,
                    *(
                        f"{number(c['own'])} / {number(c['general'])}"
                        for c in own.values()
                    ),
                )
                for rule, own in tried.items()
            ],
        )
    ]
    for by, found in result["report"].items():
        parts += [f"Rates: {by}", _figures(found, result["unedited"]), _leads(found)]
        parts.append(_costs(found))
    if result["variants"]:
        parts.append(_variants(result["variants"]))
    asked = result["coverage"]
    parts.append(
        f"Quizzes ask for {_mean(asked['asked'])} of the facts, "
        f"{_mean(asked['same_words'])} in the question's own words; {asked['dropped']} "
        f"of {asked['written']} questions were dropped; {asked['copied']} have the "
        "form of the rephrased ones."
    )
    return "\n\n".join(parts)


def _figures(found: Mapping[str, Any], fixed: Mapping[str, Any]) -> str:
    streamed = STREAMS if found["streams"] else ()
    head = ("rule", "rate", *(_words(name) for name in (*SINGLE, *streamed)))
    rows = [
        (row, "", *(_mean(own.get(name)) for name in (*SINGLE, *streamed)))
        for row, own in fixed.items()
    ]
    for rule, rate in found["rates"].items():
        own = found["single"][rule] | found["streams"].get(rule, {})
        means = [_mean(own[name]) for name in (*SINGLE, *streamed)]
        rows.append((f"`{rule}`", f"{rate:g}", *means))
    return markdown(head, rows)


def _leads(found: Mapping[str, Any]) -> str:
    names = ["own", "rephrased", "general"]
    names += ["after_8", "general_after_8"] if found["streams"] else []
    rows = []
    for other in REFERENCES:
        key = f"less_{other}"
        for rule in found["rates"]:
            if key not in found["single"][rule]:
                continue
            own = dict(found["single"][rule][key])
            own |= found["streams"].get(rule, {}).get(key, {})
            rows.append(
                (f"`{rule}` - `{other}`", *(_difference(own[n]) for n in names))
            )
    head = ("difference (95 % over seeds)", *map(_words, names))
    return markdown(head, rows)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _costs(found: Mapping[str, Any]) -> str:
    seconds = (*CPU_SECONDS, "write_seconds")
    head = ("cost of a seed", *map(_words, (*COUNTS, *seconds)))
    rows = [
        (
            f"`{rule}`",
            *(number(cost[name], 0) for name in COUNTS),
            *(number(cost[name], 1) for name in seconds),
        )
        for rule, cost in found["cost"].items()
    ]
    return markdown(
        (*head, "refused", "failed"),
        [
            (*row, str(found["refused"][rule]), str(found["failed"][rule]))
            for row, rule in zip(rows, found["cost"], strict=True)
        ],
    )


def written(result: Mapping[str, Any]) -> str:
    """The table of `inner_rules.py --written`: tokens, mean over seeds."""
    rows = [
        (
            f"`{rule}`",
            *(number(own["parts"].get(name), 0) for name in _PARTS),
            number(own["written_tokens"], 0),
        )
        for rule, own in result["written"].items()
    ]
    return markdown(("tokens written", *_PARTS, "in all"), rows)


# Units of what is written: texts, second answers, mixed answers.
_PARTS = ("propose", "again", "mix")


def number(value: float | None, digits: int) -> str:
    return formatting.number(value, digits=digits)


def _variants(found: Mapping[str, Any]) -> str:
    parts = ("own", "rephrased", "general")
    rows = [
        (
            name,
            f"{own['rate']:g}",
            *(_mean(own[part]) for part in parts),
            *(_difference(own["less_config"][part]) for part in ("own", "general")),
        )
        for name, own in found.items()
    ]
    head = ("variant", "rate", *parts, "own, less the config's", "general, less")
    return markdown(head, rows)
