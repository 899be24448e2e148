"""Prompts and answers to the character, and their lengths against the reference's."""

import math
import re
import statistics

import numpy as np
import pytest

from seal_jax.tasks.arc import examples as arc_data
from seal_jax.tasks.arc import puzzles as arc
from seal_jax.tasks.arc import text as arc_text
from seal_jax.tasks.arc import vote as arc_vote
from seal_jax.tasks.arc.examples import Example
from seal_jax.tasks.arc.puzzles import Pair, Task

A = Pair(((0, 3), (7, 6)), ((5,),))
B = Pair(((1, 2, 3),), ((4,), (4,)))
C = Pair(((9,),), ((8, 8),))
TASK = Task("made-up", (A, B), (C,))
EXAMPLE = Example((A, B), C)
LLAMA, CHATML, PLAIN = (arc_text.CHATS[name] for name in ("llama3", "chatml", "plain"))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 3), (30, 30)])
def test_grids_look_as_numpy_prints_them(shape):
    array = np.random.RandomState(0).randint(0, 10, shape)
    assert arc_text.grid_text(tuple(map(tuple, array.tolist()))) == str(array)


def test_examples_by_hand():
    assert arc_text.example_prompt(EXAMPLE, chat=LLAMA, instruction="Solve it.") == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "Solve it.\n[[0 3]\n [7 6]] -> [[5]]#\n[[1 2 3]] -> [[4]\n [4]]#<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n[[9]] -><|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert arc_text.example_prompt(EXAMPLE, chat=CHATML, instruction="Solve it.") == (
        "<|im_start|>system\nSolve it.\n[[0 3]\n [7 6]] -> [[5]]#\n[[1 2 3]] -> [[4]\n"
        " [4]]#<|im_end|>\n<|im_start|>user\n[[9]] -><|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert arc_text.example_prompt(EXAMPLE, chat=PLAIN, instruction="") == (
        "system\n[[0 3]\n [7 6]] -> [[5]]#\n[[1 2 3]] -> [[4]\n [4]]#\n"
        "user\n[[9]] ->\nassistant\n"
    )
    assert arc_text.example_answer(EXAMPLE) == "[[8 8]]#"
    assert arc_text.example_answer(Example((), A)) == "[[5]]#"


def test_a_message_without_content_is_left_out():
    bare = Example((), C)
    assert arc_text.example_prompt(bare, chat=PLAIN, instruction="") == (
        "user\n[[9]] ->\nassistant\n"
    )
    assert arc_text.example_prompt(bare, chat=PLAIN, instruction="Go.") == (
        "system\nGo.\nuser\n[[9]] ->\nassistant\n"
    )


def test_contents_are_stripped():
    said = (("system", " \n a \n b\n"), ("user", "\t"), ("user", "c"))
    assert arc_text.chat_prompt(said, LLAMA) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "a \n b<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nc<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_the_answer_is_not_in_its_prompt():
    other = Example((A, B), Pair(C.input, ((0, 1), (2, 3))))
    for chat in arc_text.CHATS.values():
        prompts = [
            arc_text.example_prompt(one, chat=chat, instruction="x")
            for one in (EXAMPLE, other)
        ]
        assert prompts[0] == prompts[1]


# Asking for a self-edit


DEMONSTRATIONS = "Input:\n0 3\n7 6\n\nOutput:\n5\n\nInput:\n1 2 3\n\nOutput:\n4\n4\n\n"


def test_propose_prompt_by_hand():
    template = arc_text.PROPOSE["plain"]
    assert arc_text.propose_prompt(TASK, chat=PLAIN, template=template) == (
        f"user\n{DEMONSTRATIONS}\nconfiguration:\nassistant\n"
    )
    template = arc_text.Propose("Be brief.", "{demonstrations}------\nGo: {x}")
    assert arc_text.propose_prompt(TASK, chat=CHATML, template=template) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
        f"{DEMONSTRATIONS}------\nGo: {{x}}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_test_is_not_shown():
    other = Task("other", TASK.train, (A, B, C))
    for template in arc_text.PROPOSE.values():
        prompts = [
            arc_text.propose_prompt(one, chat=LLAMA, template=template)
            for one in (TASK, other)
        ]
        assert prompts[0] == prompts[1]


def test_the_long_prompt_states_keys_and_nothing_of_size():
    template = arc_text.PROPOSE["arc"]
    prompt = arc_text.propose_prompt(TASK, chat=LLAMA, template=template)
    assert DEMONSTRATIONS + "------\n" in prompt
    edit = (
        '{"data_generation": {"use_basic_augmentations": ..., '
        '"use_size_augmentations": ..., "use_chain_augmentations": ..., '
        '"use_repeat_augmentations": ...}, "training": {"strategy": ..., '
        '"learning_rate": ..., "num_train_epochs": ...}}'
    )
    assert prompt.endswith(
        f"{edit}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    words = template.system + template.user.replace("{demonstrations}", "")
    assert "train_using_all_tokens" in words and "train_using_output_tokens" in words
    # No range, default or budget; no date either.
    assert not re.search("[0-9]", words)


@pytest.mark.parametrize("chat", arc_text.CHATS)
def test_no_prompt_has_a_date(chat):
    texts = [
        arc_text.propose_prompt(TASK, chat=arc_text.CHATS[chat], template=template)
        for template in arc_text.PROPOSE.values()
    ] + [
        arc_text.example_prompt(
            EXAMPLE, chat=arc_text.CHATS[chat], instruction=instruction
        )
        for instruction in arc_text.INSTRUCTIONS.values()
    ]
    for text in texts:
        assert not re.search(r"\d\d\d\d|\bdate|today|cutoff|knowledge", text.lower())


# Files


def test_prompts_by_name():
    assert arc_text.load_instruction("plain") == ""
    assert arc_text.load_instruction("arc") == arc_text.INSTRUCTIONS["arc"] != ""
    assert arc_text.load_propose("plain") is arc_text.PROPOSE["plain"]
    assert arc_text.load_propose("plain").system == ""


def test_prompts_from_files(tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text("{demonstrations}\nWrite é {x}.\n", encoding="utf-8")
    template = arc_text.load_propose(str(path))
    assert template == arc_text.Propose("", "{demonstrations}\nWrite é {x}.\n")
    assert arc_text.propose_prompt(TASK, chat=PLAIN, template=template) == (
        f"user\n{DEMONSTRATIONS}\nWrite é {{x}}.\nassistant\n"
    )
    assert arc_text.load_instruction(str(path)) == "{demonstrations}\nWrite é {x}.\n"


@pytest.mark.parametrize("load", [arc_text.load_instruction, arc_text.load_propose])
@pytest.mark.parametrize(
    "name, error, message",
    [
        ("short", ValueError, "'short' must be one of arc, plain, or the path"),
        ("", ValueError, "'' must be one of"),
        ("none.txt", FileNotFoundError, "'none.txt': no such file; give one of"),
        ("no/such", FileNotFoundError, "'no/such': no such file"),
        ("latin.txt", ValueError, "must be UTF-8 text"),
    ],
)
def test_refused_prompts(load, name, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.txt").write_bytes("é {demonstrations}".encode("latin-1"))
    with pytest.raises(error, match=message) as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_a_propose_file_must_show_the_task(tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text("Configure: {task}")
    with pytest.raises(ValueError, match=r"must contain \{demonstrations\}; add it"):
        arc_text.load_propose(str(path))


# Lengths, against the reference's measured with Llama 3's pre-tokeniser, a token for
# each of its pieces and for each special token. Digits and brackets are counted
# exactly so; a text's words are of our own and add a constant.

PIECES = re.compile(
    r"<\|\w+\|>|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]{1,3}| ?[^\sA-Za-z0-9]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = re.compile(r"(<\|\w+\|>)")
EOT = 1

# Prompt for a self-edit; longest query; answer; mean and longest training sequence.
LENGTHS = """
44f52bb0  388  228   4  383  622
4be741c5 1048 1177  10 1009 1756
5582e5ca  364  186  22  299  556
5614dbcf  612  442  22  742 1574
5bd6f4ac  980  830  22 1464 3066
6150a2bd  324  142  22  224  398
67e8384a  620  401  79  756 1602
6d0aefbc  476  293  40  510 1026
6e02f1e3  444  274  22  468  872
8be77c9e  418  228  43  421  790
8d5021e8  508  288  82  592 1168
8e1813be 1446 1794 106 1481 2523
358ba94e 2750 2744  56 2182 2675
59341089  620  419  76  793 1650
66e6c45b  380  187  37  327  630
68b67ca3  526  357  22  630 1222
903d1b4a 4356 3779 529 3522 4314
af24b4cc  916  741  45 1372 2818
b1fc8b8e  874  695  56 1334 2642
bc4146bd 1028  767 165  962 1690
c7d4e6ad 1052  709 211 1530 3366
ce8d95cc 1444 1396 134 2555 4962
"""
# Ours less theirs. A query: other words, and # counts as one piece with the brackets
# before it. A training sequence: besides, theirs begins twice and opens a further turn
# of the assistant after the answer.
PROPOSE_WORDS, QUERY_WORDS, TRAINING_WORDS = 10, -14, -20


def count(text):
    """Tokens of `text` if every piece of the pre-tokeniser were one."""
    parts = [part for part in SPECIAL.split(text) if part]
    return sum(
        1 if SPECIAL.fullmatch(part) else len(PIECES.findall(part)) for part in parts
    )


def query_length(example):
    instruction = arc_text.INSTRUCTIONS["arc"]
    return count(arc_text.example_prompt(example, chat=LLAMA, instruction=instruction))


def sequence_length(example):
    return query_length(example) + count(arc_text.example_answer(example)) + EOT


@pytest.mark.parametrize("height, width", [(1, 1), (3, 3), (2, 7), (30, 30)])
def test_tokens_of_a_grid(height, width):
    grid = ((5,) * width,) * height
    assert count(arc_text.grid_text(grid)) == height * (2 * width + 1)
    assert count(arc_text.answer_text(grid)) == height * (2 * width + 1)
    tasks = [Task("", pairs, (C,)) for pairs in ((A,), (A, Pair(grid, grid)))]
    one, two = (
        count(
            arc_text.propose_prompt(
                task, chat=LLAMA, template=arc_text.PROPOSE["plain"]
            )
        )
        for task in tasks
    )
    # Input and Output, each with its colon and line break.
    assert two - one == 2 * (2 * height * width) + 4


@pytest.fixture(scope="module")
def real(seal_data):
    folder = seal_data / "few-shot/data"
    return {
        name: one
        for file in (
            "training_challenges_filtered_1B_training_set",
            "evaluation_challenges_filtered_1B_eval_set",
        )
        for name, one in arc.load(folder / f"arc-agi_{file}.json", split="").items()
    }


@pytest.fixture(scope="module")
def lengths():
    rows = [line.split() for line in LENGTHS.split("\n") if line]
    return {name: tuple(map(int, numbers)) for name, *numbers in rows}


def test_prompts_are_as_long_as_the_references(real, lengths):
    views = arc_vote.ViewsConfig(2, arc_vote.GEOMETRIC, "leave_one_out", 8192)
    template = arc_text.PROPOSE["arc"]
    assert real.keys() == lengths.keys()
    for name, task in real.items():
        propose, query, answer, *_ = lengths[name]
        prompt = arc_text.propose_prompt(task, chat=LLAMA, template=template)
        assert count(prompt) == propose + PROPOSE_WORDS, name
        longest = max(
            query_length(view.example)
            for test in range(len(task.tests))
            for view in arc_vote.views(
                task, test, views, seed=0, length=lambda example: 0
            )
        )
        assert longest == query + QUERY_WORDS - (len(task.train) - 1), name
        answers = [count(arc_text.answer_text(test.output)) for test in task.tests]
        assert max(answers) + EOT == answer, name


def test_sequences_are_as_long_as_the_references(real, lengths):
    # Recoloured copies are as long as what they are copies of.
    cfg = arc_data.DataConfig((1, 2), 250, 30, permute=0, max_tokens=8192)
    mesh = arc_data.Switches(True, True, True, True)
    for name, task in real.items():
        *_, mean, longest = lengths[name]
        found = arc_data.pool(task, mesh, cfg, length=lambda example: 0)
        ours = [
            sequence_length(one) - TRAINING_WORDS + len(one.context) for one in found
        ]
        # The longest is among the 250 kept, by theirs and by our choice: the largest
        # versions are many.
        assert max(ours) == longest, name
        # Which 250 were kept is chance: four standard errors of such a mean, and what
        # rounding leaves (and one recoloured copy more or less).
        size = 2 * len(ours)
        kept = min(250, size)
        chance = statistics.pstdev(ours) * math.sqrt((1 - kept / size) / kept)
        assert abs(statistics.mean(ours) - mean) <= 4 * chance + 1, name
