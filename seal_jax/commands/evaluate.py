"""`seal-jax evaluate`: a data set's questions, answered and graded; no training."""

from seal_jax.runtime import interrupts

if __name__ == "__main__":
    interrupts.install()  # Before imports that take seconds.

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seal_jax.analysis import stats
from seal_jax.commands import exams, given_columns, shared
from seal_jax.rewards import graders
from seal_jax.runtime import command_line, files, formatting, plugins

if TYPE_CHECKING:
    from seal_jax.api.adapters import Adapters
    from seal_jax.api.models import Model

EXAMPLES = """
seal-jax evaluate runs/tiny
seal-jax evaluate embedded:tiny --data=world --count=96 --answer=plain --max-tokens=4
seal-jax evaluate embedded:tiny --like=runs/tiny --adapters=adapters --count=3
seal-jax evaluate Qwen/Qwen2.5-7B --data=squad_val.json --grade=f1 --out=answers.jsonl
seal-jax evaluate embedded:tiny --data=mine.csv --column=question=q --column=answer=a
"""
_KEEP = "of the run, if one is given; else"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = command_line.Parser(
        prog="seal-jax evaluate",
        description="A model answers questions about passages without them, and is "
        "graded: a base, the policy of a run, or either with adapters. The workdir "
        "of a run also says on what, and how: its held-out passages and its grader.",
        examples=EXAMPLES,
    )
    shared.add_model(parser, positional=True)
    shared.add_adapters(parser)
    parser.add_argument(
        "--like",
        metavar="WORKDIR",
        help="take passages, prompt and grader of this run; other flags change them",
    )
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="world (generated), a file in SEAL's format, or a hub name like SQuAD; "
        "with --column any table or hub name",
    )
    given_columns.add(parser, exams.COLUMNS)
    start = command_line.whole(0, 10_000_000)
    parser.add_argument("--split", help="of the hub's data set")
    parser.add_argument("--start", type=start, help="the first passage; 0")
    parser.add_argument(
        "--count",
        type=command_line.whole(1, 20_000),
        help=f"passages; {_KEEP} 100",
    )
    parser.add_argument(
        "--shuffle-seed", type=command_line.SEED, help="of the passages' order; 0"
    )
    parser.add_argument(
        "--answer",
        metavar="PROMPT",
        help="concise, plain, or a text file with {title} and {question}; "
        f"{_KEEP} concise",
    )
    shared.add_drawing(parser, of_run=_KEEP)
    parser.add_argument(
        "--grade",
        choices=plugins.Names((*graders.LOCAL, "judge")),
        help=f"who grades, or module:function of your own; {_KEEP} recall",
    )
    parser.add_argument(
        "--threshold", type=command_line.real(0.0, 1.0, least=1e-9), help="of recall"
    )
    parser.add_argument("--judge-url", metavar="URL", help="of --grade judge")
    parser.add_argument("--judge-model", metavar="NAME")
    parser.add_argument(
        "--out", metavar="FILE", help="write rows of JSON there, one for each answer"
    )
    args = parser.parse_args(argv)
    return shared.ended(lambda: _evaluate(args))


def _evaluate(args: argparse.Namespace) -> None:
    exam = exams.read(args)
    if args.out:
        shared.check_folder("--out", args.out)
    elif exam.grade.name == "judge":
        raise ValueError(
            "--grade judge keeps its verdicts beside --out; give --out FILE"
        )
    model = shared.open_model(args.model, args.dtype)
    adapters = shared.read_adapters(args.adapters, model)
    if adapters is not None and len(adapters) not in (1, len(exam.passages)):
        raise ValueError(
            f"--adapters are {len(adapters)} and passages {len(exam.passages)}; give "
            "one adapter for all, or one for each: --count says how many passages"
        )
    rows = [_Row.of(exam, model, None, args)]
    if adapters is not None:
        rows.append(_Row.of(exam, model, adapters, args))
    print(_table(rows))
    if args.out:
        files.write_jsonl(args.out, [line for row in rows for line in row.lines])
        print(f"\nanswers: {args.out}")


@dataclasses.dataclass(frozen=True)
class _Row:
    """What one way to answer scored: a mean for each passage, and every answer."""

    name: str
    values: list[float | None]
    lines: list[dict[str, Any]]

    @classmethod
    def of(
        cls,
        exam: exams.Exam,
        model: "Model",
        adapters: "Adapters | None",
        args: argparse.Namespace,
    ) -> "_Row":
        """Asks and grades.

        Raises:
          ValueError: a prompt that the model does not take.
          judge.JudgeError: the endpoint refuses.
        """
        # Imported here, like all that brings jax.
        from seal_jax.rounds import grading

        name = "model" if adapters is None else "adapters"
        score = grading.scorer(exam.grade, Path(args.out or ".").absolute().parent)
        task = exam.task(model.policy, score)
        answers = model.generate(
            [task.prompts(passage) for passage in exam.passages],
            adapters,
            **exam.drawing,
        )
        asked = [
            (passage, question, answer)
            for passage, texts in zip(exam.passages, answers, strict=True)
            for question, answer in zip(passage.questions, texts, strict=True)
        ]
        scores = task.score(list(zip(exam.passages, answers, strict=True)))
        lines = [
            {
                "row": name,
                "passage_id": passage.id,
                "title": passage.title,
                "question": question.question,
                "gold": question.answer,
                "answer": answer,
                "score": scored,
            }
            for (passage, question, answer), scored in zip(asked, scores, strict=True)
        ]
        by_passage: dict[str, list[float | None]] = {p.id: [] for p in exam.passages}
        for line in lines:
            by_passage[line["passage_id"]].append(line["score"])
        return cls(name, [stats.mean(each) for each in by_passage.values()], lines)


def _table(rows: Sequence[_Row]) -> str:
    """The rows; and what the adapters add, over the same passages."""
    head = ("", "mean", "se", "95 %", "passages", "questions", "empty", "missing")
    cells = []
    for row in rows:
        average, se = stats.mean_se_of_any(row.values)
        empty = stats.mean([float(not line["answer"].strip()) for line in row.lines])
        missing = sum(line["score"] is None for line in row.lines)
        cells.append(
            (
                row.name,
                formatting.number(average),
                formatting.number(se),
                formatting.span(*stats.interval(row.values)),
                formatting.count(len(row.values)),
                formatting.count(len(row.lines)),
                formatting.percent(empty),
                formatting.count(missing),
            )
        )
    text = formatting.ruled(head, cells)
    if len(rows) > 1:
        diff, se, _ = stats.paired(rows[1].values, rows[0].values)
        text += (
            f"\n\nadapters - model, by passage: {formatting.signed(diff)}, standard "
            f"error {formatting.number(se)}"
        )
    return text


if __name__ == "__main__":
    with interrupts.one_line():
        raise SystemExit(main())
