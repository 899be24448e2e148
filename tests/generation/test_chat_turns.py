"""What a policy with a chat is asked and learns, from the config's `model.chat` on."""

import dataclasses

import chat_models
import jax
import pytest
import tiny_model

from seal_jax.embedded import pretraining
from seal_jax.generation import policies
from seal_jax.generation.settings import ModelSource
from seal_jax.models import decoder
from seal_jax.rounds.few_shot_settings import FewShot
from seal_jax.rounds.over_seeds_settings import OverSeeds
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import config_rules
from seal_jax.tasks import knowledge_setup
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage, Question

PASSAGE = Passage("p", "Karsk", "Ada cooks.\nBo eats.", (Question("Who?", "Ada"),))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Model directories by template; None: a tokenizer without one."""

    def write(name: str | None, begins: bool = False):
        path = tmp_path_factory.mktemp("model") / "model"
        template = None if name is None else chat_models.TEMPLATES[name]
        tokenizer = chat_models.tokenizer(template, begins=begins)
        rows = len(tokenizer)
        arch = decoder.Arch("llama", rows, 16, 1, 2, 1, 8, 24, 2048, tied=True)
        params = decoder.init_params(jax.random.key(0), arch)
        pretraining.export(path, arch, params, tokenizer)
        return path

    return write


def described(path, chat):
    source = ModelSource(str(path), False, "float32", "auto", "auto", chat=chat)
    return policies.describe(source)


def task_of(policy):
    exp = config_rules.build(PassageRounds, tiny_model.values(str(policy.source)))
    return knowledge_setup.make_rounds(exp, policy, [PASSAGE], [PASSAGE])


def read(policy):
    """Everything that a policy is asked, and its training lines, as text."""
    task = task_of(policy)
    lines = task.job(PASSAGE, Edit(0, 0, "", "Cy naps.\nDi runs."), (0,)).lines
    asked = (task.propose_prompt(PASSAGE), *task.prompts(PASSAGE))
    shown = task.in_view().prompts(PASSAGE)
    ids = [*map(policy.sequence, (*asked, *shown)), *map(list, lines)]
    return [policy.tokenizer.decode(i) for i in ids]


HEAD = "<|im_start|>system\nYou are a helpful AI assistant named Smol<|im_end|>\n"


def turn(text: str) -> str:
    return f"{HEAD}<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


BARE = [
    "Passage:\nKarsk\nAda cooks.\nBo eats.\n\nImplications:\n",
    "Topic: Karsk\nQuestion: Who?\nAnswer:\n",
    "Passage:\nKarsk\nAda cooks.\nBo eats.\n\nQuestion: Who?\nAnswer:\n",
]
LINES = ["Cy naps.", "Di runs.", "Ada cooks.\nBo eats."]


def test_prompts_and_lines_are_turns_of_the_chat(folder):
    policy = described(folder("smollm2"), "auto")
    assert read(policy) == [
        *(turn(text.strip()) for text in BARE),
        *(f"{turn('Karsk')}{line}" for line in LINES),
    ]


@pytest.mark.parametrize(("name", "chat"), [("smollm2", "none"), (None, "auto")])
def test_without_a_chat_they_are_documents(folder, name, chat):
    policy = described(folder(name), chat)
    assert read(policy) == [*BARE, *(f"Karsk\n{line}" for line in LINES)]


def test_what_ends_a_turn_comes_first_and_the_models_own_stay(folder):
    path = folder("qwen2.5")
    (end,) = described(path, "none").encode("<|im_end|>")
    plain = described(path, "none").stop_ids
    assert end not in plain
    assert described(path, "auto").stop_ids == (end, *plain)
    bare = folder("bare")
    assert described(bare, "auto").stop_ids == described(bare, "none").stop_ids


def test_a_chat_that_begins_a_text_is_begun_once(folder):
    policy = described(folder("llama3", begins=True), "auto")
    (bos,) = policy.begin
    task = task_of(policy)
    lines = task.job(PASSAGE, Edit(0, 0, "", "Cy naps."), (0,)).lines
    for ids in (policy.sequence(task.propose_prompt(PASSAGE)), *lines):
        assert ids[0] == bos and bos not in ids[1:]


def test_passages_must_fit_with_the_turn_around_them(folder):
    policy = described(folder("smollm2"), "auto")
    exp = config_rules.build(
        PassageRounds, tiny_model.values(str(policy.source), inner__row_tokens=64)
    )
    line = policy.line(f"{PASSAGE.title}\n{PASSAGE.text}")
    with pytest.raises(ValueError, match=f"takes {len(line)} tokens, 64 fit"):
        knowledge_setup.make_rounds(exp, policy, [PASSAGE], [PASSAGE])
    bare = dataclasses.replace(policy, chats=False)
    knowledge_setup.make_rounds(exp, bare, [PASSAGE], [PASSAGE])


def test_passages_in_view_must_fit_where_they_are_shown(folder):
    policy = described(folder(None), "none")
    values = tiny_model.values(str(policy.source))
    task = task_of(policy)
    question = Question("Who is it that cooks in this passage?", "Ada")
    passage = dataclasses.replace(PASSAGE, questions=(question,))
    prompt = policy.sequence(task.in_view().prompts(passage)[0])
    room = len(prompt) + task.exp.answer.max_tokens - 1
    arch = dataclasses.replace(policy.arch, max_position=room)
    policy = dataclasses.replace(policy, arch=arch)
    for ladder, fits in ((("base",), True), (("base", "in_context"), False)):
        exp = config_rules.build(PassageRounds, values | {"ladder": ladder})
        if fits:
            knowledge_setup.make_rounds(exp, policy, [], [passage])
        else:
            with pytest.raises(ValueError, match="with the passage in view takes"):
                knowledge_setup.make_rounds(exp, policy, [], [passage])


def test_where_there_is_no_chat_a_config_must_not_ask_for_one():
    values = tiny_model.load_config("arc", "debug").to_dict()
    values["model"]["chat"] = "auto"
    with pytest.raises(ValueError, match=r"model.chat='auto' .*task.chat=.*'none'"):
        config_rules.build(FewShot, values)
    values = tiny_model.load_config("tiny", "seeds").to_dict()
    values["model"]["chat"] = "auto"
    with pytest.raises(ValueError, match=r"model.chat='auto' has no form on tokens"):
        config_rules.build(OverSeeds, values)
    with pytest.raises(ValueError, match=r"model.chat='chatml' must be one of"):
        ModelSource("m", True, "float32", "auto", "auto", chat="chatml")
