"""Grids, chats and prompts as text.

The layout is the SEAL reference's (arXiv 2506.10943, section 4.1), the words are ours,
and each can be replaced by a file. Chats are written out here and not by a tokenizer's
template: Llama 3.2's puts the date of today into every prompt.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from seal_jax.runtime import files
from seal_jax.runtime.config_rules import shown
from seal_jax.tasks.arc.examples import Example
from seal_jax.tasks.arc.puzzles import Grid, Pair, Task

# Ends every output grid.
STOP = "#"
_ARROW = " ->"


@dataclasses.dataclass(frozen=True)
class Chat:
    """How a model is told who says what.

    Attributes:
      begin: opens every text; a special token of the model, or nothing.
      header: opens a message by {role}.
      end: closes a message; one special token of the model, or nothing, where the
        caller ends an answer by the model's own end of text.
      between: follows `end` where another message comes after.
    """

    begin: str
    header: str
    end: str
    between: str


CHATS: dict[str, Chat] = {
    "llama3": Chat(
        begin="<|begin_of_text|>",
        header="<|start_header_id|>{role}<|end_header_id|>\n\n",
        end="<|eot_id|>",
        between="",
    ),
    "chatml": Chat(
        begin="", header="<|im_start|>{role}\n", end="<|im_end|>", between="\n"
    ),
    "plain": Chat(begin="", header="{role}\n", end="", between="\n"),
}

# What comes before the demonstrations of a training example or a query.
INSTRUCTIONS: dict[str, str] = {
    "arc": (
        "One hidden rule turns each input grid below into the output grid after the "
        "arrow. Work out the rule, apply it to the input that comes last and reply "
        "with its output alone, in the same notation: rows of digits in brackets."
    ),
    # The embedded model knows no words.
    "plain": "",
}


class Propose(NamedTuple):
    """A prompt for a self-edit: system message ("" is none) and user's message."""

    system: str
    user: str


PROPOSE: dict[str, Propose] = {
    # No ranges, no defaults and no budget: the reference tells none either, and what
    # they are is for the policy to learn. A file can say more.
    "arc": Propose(
        "Reply at once with the final answer and nothing else.",
        "{demonstrations}------\n"
        "The pairs above show the rule of one puzzle. A small adapter is about to be "
        "trained on them, and you decide how.\n\n"
        "Switch on or off the ways to make further training pairs out of these:\n"
        "- use_basic_augmentations: rotate, flip, mirror, shift and transpose the "
        "grids\n"
        "- use_size_augmentations: enlarge the grids in height, in width or in both\n"
        "- use_chain_augmentations: rotate or flip the grids, then enlarge them\n"
        "- use_repeat_augmentations: lay copies of the grids side by side\n\n"
        "Choose what the loss is taken on:\n"
        '- strategy: "train_using_all_tokens" for the whole text, or '
        '"train_using_output_tokens" for the final output grid alone\n\n'
        "Choose how to optimise:\n"
        "- learning_rate: a decimal number\n"
        "- num_train_epochs: a whole number of passes over the pairs\n\n"
        "Write one valid JSON object and nothing around it, with these keys:\n"
        '{"data_generation": {"use_basic_augmentations": ..., '
        '"use_size_augmentations": ..., "use_chain_augmentations": ..., '
        '"use_repeat_augmentations": ...}, "training": {"strategy": ..., '
        '"learning_rate": ..., "num_train_epochs": ...}}',
    ),
    "plain": Propose("", "{demonstrations}\nconfiguration:"),
}

_DEMONSTRATIONS = "{demonstrations}"


def grid_text(grid: Grid) -> str:
    """A grid as numpy prints it: [[0 3], line break, space, [7 6]]."""
    return "[" + "\n ".join(f"[{_row_text(row)}]" for row in grid) + "]"


def _row_text(row: Sequence[int]) -> str:
    return " ".join(map(str, row))


def chat_prompt(messages: Iterable[tuple[str, str]], chat: Chat) -> str:
    """Messages (role, content), and the header of the assistant's turn, left open.

    A content is stripped of white space at both ends, as Llama 3's template does, and
    a message without content is left out.
    """
    said = [(role, content.strip()) for role, content in messages]
    parts = [chat.begin]
    for role, content in said:
        if content:
            parts += [chat.header.format(role=role), content, chat.end, chat.between]
    return "".join((*parts, chat.header.format(role="assistant")))


# Training examples and queries


def example_prompt(example: Example, *, chat: Chat, instruction: str) -> str:
    """The text up to the answer: instruction, context and the query's input."""
    blocks = (
        f"{grid_text(pair.input)}{_ARROW} {answer_text(pair.output)}\n"
        for pair in example.context
    )
    opening = f"{instruction}\n" if instruction else ""
    return chat_prompt(
        (
            ("system", opening + "".join(blocks)),
            ("user", f"{grid_text(example.query.input)}{_ARROW}"),
        ),
        chat,
    )


def example_answer(example: Example) -> str:
    """What the model is to write, without the end of its turn: [[...]]#."""
    return answer_text(example.query.output)


def answer_text(grid: Grid) -> str:
    """An output grid with the sign that ends it."""
    return grid_text(grid) + STOP


# Asking for a self-edit


def propose_prompt(task: Task, *, chat: Chat, template: Propose) -> str:
    """The prompt whose completion is a self-edit of `task`: its demonstrations.

    Neither a test's input nor its output is shown.
    """
    text = "".join(_demonstration(pair) for pair in task.train)
    # replace, not format: the skeleton has braces of its own.
    user = template.user.replace(_DEMONSTRATIONS, text)
    return chat_prompt((("system", template.system), ("user", user)), chat)


def _demonstration(pair: Pair) -> str:
    input_text, output_text = ("\n".join(map(_row_text, grid)) for grid in pair)
    return f"Input:\n{input_text}\n\nOutput:\n{output_text}\n\n"


def load_instruction(name_or_file: str) -> str:
    """An instruction: one of `INSTRUCTIONS` by its name, or a text file's content.

    Raises:
      ValueError: unknown name, or a file that is not text.
      FileNotFoundError: what looks like a file is not there.
    """
    if name_or_file in INSTRUCTIONS:
        return INSTRUCTIONS[name_or_file]
    return _read(name_or_file, "instruction", INSTRUCTIONS)


def load_propose(name_or_file: str) -> Propose:
    """A prompt for self-edits: one of `PROPOSE` by its name, or a text file's content.

    A file is the user's message, with {demonstrations} where they belong; there is no
    system message then.

    Raises:
      ValueError: unknown name, or a file that is not text or lacks {demonstrations}.
      FileNotFoundError: what looks like a file is not there.
    """
    if name_or_file in PROPOSE:
        return PROPOSE[name_or_file]
    text = _read(name_or_file, "propose", PROPOSE)
    if _DEMONSTRATIONS not in text:
        raise ValueError(
            f"{name_or_file}: a propose prompt must contain {_DEMONSTRATIONS}; add it"
        )
    return Propose("", text)


def _read(name_or_file: str, kind: str, names_given: Iterable[str]) -> str:
    path = Path(name_or_file)
    names = f"one of {', '.join(names_given)}, or the path of a text file"
    if not files.is_file(path):
        if path.suffix or len(path.parts) > 1:
            raise FileNotFoundError(
                f"{kind} prompt {shown(name_or_file)}: no such file; give {names}"
            )
        raise ValueError(f"{kind} prompt {shown(name_or_file)} must be {names}")
    return files.read_prompt(path)
