"""Questions as a config names them: generated, from files, or from the hub."""

import dataclasses
import random

from seal_jax.runtime import config_rules, files
from seal_jax.runtime.config_rules import Seed, Start, shown
from seal_jax.tasks import chains, hops, rows
from seal_jax.tasks.chains import Exemplar, Question

HOPS, ROWS = TASKS = ("hops", "rows")
TRAIN, HELDOUT = "train", "heldout"
FIX = (
    "give a file or folder of rows (.json, .jsonl, .csv, .parquet), or a data set's "
    "owner/name or owner/name:configuration"
)


@dataclasses.dataclass(frozen=True)
class QuestionsConfig:
    """Where questions come from.

    `name = "rows"`: `train` and `heldout` are files, folders or hub names that
    `tasks.rows` reads (with the `_split` to take); each list is shuffled with
    `shuffle_seed` and taken from `_start` on. `question` and `answer` name the columns;
    without an answer (`answer = ""`, or a blank one) a question can be learned from and
    not be scored. Of a worked answer the part after its mark counts (`chains.read`), as
    in GSM8K. `examples`: a file of questions with worked answers, in the same columns,
    that prompts show. `name = "hops"`: all of it is generated (`tasks.hops`) from
    `shuffle_seed`, and the source fields must be empty.
    """

    name: str
    train: str
    train_split: str
    train_start: Start
    heldout: str
    heldout_split: str
    heldout_start: Start
    question: str
    answer: str
    examples: str
    shuffle_seed: Seed

    def __post_init__(self):
        config_rules.one_of("task.name", self.name, TASKS)
        sources = ("train", "train_split", "heldout", "heldout_split", "examples")
        for name in sources:
            if self.name == HOPS and (value := getattr(self, name)):
                raise ValueError(
                    f"task.{name}={shown(value)} is not read by task.name='hops', "
                    "which is generated; use task.name='rows' for files, or ''"
                )
        if self.name == ROWS and not self.question:
            raise ValueError(
                "task.question='' must name the column that holds the questions; fill "
                "it in"
            )
        config_rules.check(self, "task")


def load(
    task: QuestionsConfig,
    side: str,
    *,
    count: int,
    answered: bool = True,
    shots: int = 0,
) -> list[Question]:
    """`count` questions of the training or the held-out side, from its start on.

    `answered`: whether gold answers are needed; else their column may be absent.
    `shots`: examples that prompts show, whose facts a generated question must not need.

    Raises:
      ValueError: too few, or rows that lack the columns.
      FileNotFoundError: no such source.
    """
    train = side == TRAIN
    start = task.train_start if train else task.heldout_start
    if task.name == HOPS:
        seed = task.shuffle_seed
        return hops.questions(side, seed=seed, start=start, count=count, shots=shots)
    source = source_of(task, side)
    split = task.train_split if train else task.heldout_split
    given = read(task, source, split, answered=answered)
    found = [Question(e.question, e.answer or None) for e in given]
    # Twice the same question would be twice the same vote.
    found = list({q.question: q for q in found}.values())
    random.Random(task.shuffle_seed).shuffle(found)
    if start + count > len(found):
        raise ValueError(
            f"task.{side}_start={start} + {count} questions must be at most the "
            f"{len(found)} different ones of {source}; ask for fewer or give more data"
        )
    return found[start : start + count]


def source_of(task: QuestionsConfig, side: str) -> str:
    """The file, folder or name of the hub that a side's rows come from.

    Raises:
      ValueError: it is blank.
    """
    source = task.train if side == TRAIN else task.heldout
    if not source:
        raise ValueError(f"task.{side}='' must name the questions of that side; {FIX}")
    return source


def read(
    task: QuestionsConfig, source: str, split: str, *, answered: bool = True
) -> list[Exemplar]:
    """All rows of a source in their order; blank answers and steps where there is none.

    `answered`: see `load`. An answer may be true or false, which is yes or no.

    Raises:
      ValueError: a column that is not there, a blank question, or no text.
      FileNotFoundError: no such source.
    """
    table = rows.read(source, split=split, fix=FIX)
    wanted = {"task.question": task.question}
    if answered:
        wanted["task.answer"] = task.answer
    rows.check_columns(table, {key: name for key, name in wanted.items() if name})
    found = []
    for row in table.rows:
        question = _word(row, task.question)
        if not question:
            raise ValueError(
                f"{row.where}: {task.question!r} must hold a question; fill it in, or "
                "remove the row"
            )
        worked = _word(row, task.answer, truths=True) if task.answer else ""
        chain = chains.read(worked)
        steps, answer = (chain.steps, chain.answer) if chain else ("", worked)
        found.append(Exemplar(question, steps, answer))
    return found


def _word(row: rows.Row, column: str, *, truths: bool = False) -> str:
    value = rows.value(row, column)
    if value is None:
        return ""
    if truths and isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(
            f"{row.where}: {column}={shown(value)} must be a text or a number; correct "
            "it, or name another column"
        )
    return str(value).strip()


def exemplars(task: QuestionsConfig, count: int) -> list[Exemplar]:
    """The worked questions that prompts show, the first `count` there are.

    Raises:
      ValueError: too few, or one without steps or an answer.
      FileNotFoundError: no such file.
    """
    if not count:
        return []
    if task.name == HOPS:
        return hops.exemplars(count)
    if not task.examples:
        return list(_some(ARITHMETIC, count, "seal_jax's own examples"))
    if not (files.is_file(task.examples) or files.is_folder(task.examples)):
        raise FileNotFoundError(
            f"task.examples={shown(task.examples)}: no such file or folder, and of the "
            "hub no examples are taken; give a file of worked questions, or ''"
        )
    found = read(task, task.examples, "")
    for exemplar in found[:count]:
        if not exemplar.steps or not exemplar.answer:
            raise ValueError(
                f"task.examples={shown(task.examples)}: the answer to "
                f"{shown(exemplar.question)} must be steps and a last line 'Answer: "
                "...' or '#### ...'; write it so"
            )
    return list(_some(found, count, f"task.examples={shown(task.examples)}"))


def _some(found: list[Exemplar], count: int, source: str) -> list[Exemplar]:
    if count > len(found):
        raise ValueError(
            f"chains.shots={count} must be at most the {len(found)} of {source}; lower "
            "it"
        )
    return found[:count]


# Word problems of our own, for data that come without worked examples.
ARITHMETIC = [
    Exemplar(
        "A baker packs 6 boxes with 8 rolls each and has 5 rolls left over. How many "
        "rolls did she bake?",
        "The boxes hold 6 times 8 rolls, which is 48.\n"
        "With the 5 left over there are 48 + 5 = 53 rolls.",
        "53",
    ),
    Exemplar(
        "Tom had 40 coins. He gave a quarter of them to his sister and then found 3 "
        "more. How many coins does he have now?",
        "A quarter of 40 is 10, so he keeps 40 - 10 = 30 coins.\n"
        "With the 3 that he found he has 30 + 3 = 33.",
        "33",
    ),
    Exemplar(
        "A train leaves at 9:40 and arrives at 12:10. How many minutes does the trip "
        "take?",
        "From 9:40 to 12:00 are 2 hours and 20 minutes, which is 140 minutes.\n"
        "From 12:00 to 12:10 are 10 more, so it takes 140 + 10 = 150 minutes.",
        "150",
    ),
    Exemplar(
        "Three friends share a bill of 84 dollars equally, and each adds 2 dollars as "
        "a tip. How many dollars does each pay?",
        "Each share of the bill is 84 / 3 = 28 dollars.\n"
        "With the tip each pays 28 + 2 = 30 dollars.",
        "30",
    ),
]
