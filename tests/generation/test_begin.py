"""Every sequence begins once as the model's own tokenizer begins it."""

import dataclasses
import types

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import tiny_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from seal_jax.continual import step as continual_step
from seal_jax.continual.settings import Continual
from seal_jax.embedded import pretraining
from seal_jax.embedded import settings as pretrain_settings
from seal_jax.generation import generate, policies
from seal_jax.generation.settings import Decoding, ModelSource
from seal_jax.models import decoder, hf
from seal_jax.pooled import texts as pooled_texts
from seal_jax.pooled.settings import Pooled
from seal_jax.rounds import learn
from seal_jax.rounds.few_shot_settings import FewShot
from seal_jax.rounds.lessons import Lesson
from seal_jax.rounds.settings import PassageRounds
from seal_jax.runtime import config_rules
from seal_jax.tasks import few_shot, knowledge
from seal_jax.tasks.arc import examples as arc_data
from seal_jax.tasks.arc import generated
from seal_jax.tasks.arc import self_edit as arc_edit
from seal_jax.tasks.arc import text as arc_text
from seal_jax.tasks.base import Edit
from seal_jax.tasks.passage import Passage, Question
from seal_jax.training import imitate as sft

PASSAGE = Passage("p", "Karsk", "Ada cooks.", (Question("Who?", "Ada"),))
HEADERS = (
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
LLAMA = ("<|end_of_text|>", *HEADERS)


def letters(template: str | None, bos: str | None = LLAMA[1]):
    """A tokenizer of bytes with Llama 3's special tokens, and its post-processing."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=LLAMA[0], bos_token=bos
    )
    fast.add_special_tokens({"additional_special_tokens": list(HEADERS)})
    if template is not None:
        tokens = [(t, fast.convert_tokens_to_ids(t)) for t in LLAMA]
        fast.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=template, pair=f"{template} $B:1", special_tokens=tokens
        )
    return fast


TEMPLATES = {
    None: (),
    "$A": (),
    "$A <|end_of_text|>": (),
    "<|begin_of_text|> $A": LLAMA[1:2],
    "<|begin_of_text|> $A <|end_of_text|>": LLAMA[1:2],
    "<|begin_of_text|> <|eot_id|> $A": (LLAMA[1], LLAMA[4]),
}


@pytest.mark.parametrize(("template", "begin"), TEMPLATES.items())
def test_the_beginning_is_the_tokenizers_own(template, begin, tmp_path):
    letters(template).save_pretrained(tmp_path)
    tokenizer = hf.load_tokenizer(tmp_path)
    ids = tuple(tokenizer.convert_tokens_to_ids(list(begin)))
    assert hf.begin_ids(tokenizer) == ids
    assert hf.begin_ids(letters(template)) == ids


def policy_of(template, path=None):
    tokenizer = letters(template)
    arch = decoder.Arch("llama", len(tokenizer), 16, 1, 2, 1, 8, 24, 8192, tied=True)
    begin = hf.begin_ids(tokenizer)
    eos = tokenizer.convert_tokens_to_ids([LLAMA[4], LLAMA[0]])
    return policies.Policy(arch, {}, tokenizer, tuple(eos), path, begin)


BEGUN = policy_of("<|begin_of_text|> $A")
BARE = policy_of(None)
BOS = BEGUN.begin[0]


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(st.text(max_size=20), st.sampled_from([BEGUN, BARE]))
def test_a_sequence_is_begun_once(text, policy):
    whole = policy.tokenizer.encode(text, add_special_tokens=True)
    assert policy.sequence(text) == whole
    # What a chat has written there itself is not written again.
    assert policy.sequence(f"{LLAMA[1]}{text}") == [BOS, *policy.encode(text)]


def sequences(policy):
    """Token ids of every kind of sequence that a policy reads or learns, by kind."""
    found = {}

    def ran(params, adapters, requests, keys, **_):
        found["requests"] = [list(request.prompt) for request in requests]
        return types.SimpleNamespace(tokens=[policy.encode("x")] * len(requests))

    def likelihoods(params, adapters, requests, prompts, **_):
        found["likelihoods"] = [list(request.prompt) for request in requests]
        return np.zeros(len(requests))

    decoding = Decoding("plain", 1.0, 1.0, 0, 1, 4, 8, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "run", ran)
        patch.setattr(generate, "log_likelihoods", likelihoods)
        keys = jax.random.split(jax.random.key(0), 2)
        policies.write(policy, ["a", "b"], keys, decoding)
        found["proposals, quizzes"] = found["requests"]
        policies.answer(policy, None, [["a"], ["b"]], keys, decoding)
        found["answers"] = found["requests"]
        policies.log_likelihood(policy, None, [[("a", "b")]], decoding)
        found["lines"], found["continual lines"] = lines(policy)
        found["pooled lines"] = pooled_lines(policy)
        continual_proposals(policy)
        found["continual proposals"] = found.pop("requests")
        found["imitation"] = imitated(policy, patch)
    return found


def lines(policy):
    values = tiny_model.values("model", inner__row_tokens=96)
    exp = config_rules.build(PassageRounds, values)
    task = knowledge.Knowledge(exp, policy, "{title} {passage}", "", list, list)
    job = task.job(PASSAGE, Edit(0, 0, "", "one\ntwo"), (0,))
    setting = continual(policy, task, {"replay"})
    replayed = continual_step.job(setting, Edit(0, 0, "", "one"), 1, ["Karsk\nold"])
    return map(lambda job: list(map(list, job.lines)), (job, replayed))


def continual(policy, task, controls=frozenset()):
    exp = config_rules.build(
        Continual, tiny_model.load_config("continual", "debug").to_dict()
    )
    run = types.SimpleNamespace(key=jax.random.key(0), exp=exp)
    return types.SimpleNamespace(
        run=run,
        exp=exp,
        base=policy,
        task=task,
        controls=controls,
        sequences=[[PASSAGE]],
        candidates=1,
    )


def continual_proposals(policy):
    task = types.SimpleNamespace(propose_prompt=lambda passage: passage.text)
    continual_step.propose(continual(policy, task), None, 1)


def pooled_lines(policy):
    config = tiny_model.load_config("squad_cpt", "debug")
    exp = config_rules.build(Pooled, config.to_dict())
    task = knowledge.Knowledge(exp, policy, "", "", list, list)
    job = pooled_texts.job(exp, task, [["Karsk\nold"], ["Karsk\nnew"]], 0)
    return list(map(list, job.lines))


class Seen(Exception):
    """Carries what the fine-tuning was given."""


def imitated(policy, patch):
    def train(params, pairs, key, **_):
        raise Seen(pairs)

    patch.setattr(sft, "train", train)
    values = tiny_model.values("model")
    run = types.SimpleNamespace(
        exp=config_rules.build(PassageRounds, values),
        key=jax.random.key(0),
        task=types.SimpleNamespace(called="self-edits"),
        say=lambda line: None,
        mesh=None,
    )
    lessons = [Lesson(Edit(0, 0, "prompt", "text"))]
    with pytest.raises(Seen) as seen:
        learn.imitate(
            run,
            policy,
            lessons,
            start=None,
            past=[],
            round_index=1,
            workdir=policy.source,
        )
    ((prompt, text),) = seen.value.args[0]
    assert BOS not in text
    return [[*prompt, *text]]


def test_every_kind_of_sequence_is_begun_once(tmp_path):
    begun, bare = (
        sequences(dataclasses.replace(policy, source=tmp_path))
        for policy in (BEGUN, BARE)
    )
    assert len(begun) == 8
    for kind, found in begun.items():
        assert found and all(ids[0] == BOS and BOS not in ids[1:] for ids in found), (
            kind
        )
        # And but for that nothing changes.
        assert [ids[1:] for ids in found] == bare[kind], kind


def test_generic_texts_start_from_what_begins_a_text():
    made = {}

    def ran(params, adapters, requests, keys, *, cfg, **_):
        made["requests"], made["cfg"] = requests, cfg
        return types.SimpleNamespace(tokens=[[7, 8]] * len(requests))

    for policy, start, text in ((BEGUN, BOS, [BOS, 7, 8]), (BARE, BARE.eos, [7, 8])):
        setting = continual(policy, None)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(generate, "run", ran)
            texts = continual_step.generic_texts(setting.run, policy)
        assert {request.prompt for request in made["requests"]} == {(start,)}
        assert texts == [text] * len(texts)
        room = setting.exp.retain.kl_tokens
        assert made["cfg"].max_tokens + len(text) - 2 == room


@pytest.mark.parametrize("chat", arc_text.CHATS)
def test_a_chat_that_has_the_beginning_gets_no_second_one(chat):
    values = tiny_model.load_config("arc", "tiny")
    values.task.chat = chat
    exp = config_rules.build(FewShot, values.to_dict())
    task = few_shot.FewShotTask(exp, BEGUN)
    (item,) = generated.tasks("train", seed=3, start=0, count=1)
    nothing = arc_data.Switches(False, False, False, False)
    text = arc_edit.SelfEdit(nothing, True, 1e-2, 2).json()
    job = task.job(item, Edit(0, 0, "prompt", text), ())
    read = [BEGUN.sequence(p) for p in (*task.prompts(item), task.propose_prompt(item))]
    for ids in (*map(list, job.lines), *read):
        assert ids[0] == BOS and BOS not in ids[1:]


def test_a_whole_model_that_begins_its_texts(tmp_path):
    """From its directory to what it writes, which is not what it else would."""
    tokenizer = pretraining.build_tokenizer(pretrain_settings.CORPORA["world"]())
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    bos = tokenizer.convert_tokens_to_ids("<bos>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", bos)]
    )
    arch = decoder.Arch("llama", len(tokenizer), 16, 2, 2, 1, 8, 24, 256, tied=True)
    params = decoder.init_params(jax.random.key(0), arch)
    params = jax.tree.map(lambda leaf: leaf * 12 if leaf.ndim > 1 else leaf, params)
    pretraining.export(tmp_path / "model", arch, params, tokenizer)
    source = ModelSource(str(tmp_path / "model"), False, "float32", "auto", "auto")
    policy = policies.load(source, policies.describe(source), seed=0)
    assert policy.begin == (bos,)
    decoding = Decoding("plain", 0.0, 1.0, 0, 1, 6, 32, 4)
    keys = jax.random.split(jax.random.key(0), 2)
    prompts = ["Topic: Karsk\nQuestion: What?\nAnswer:\n", "Ada Quill plays"]
    said = policies.write(policy, prompts, keys, decoding)
    bare = dataclasses.replace(policy, begin=())
    assert said != policies.write(bare, prompts, keys, decoding)
    written = [f"<bos>{prompt}" for prompt in prompts]
    assert said == policies.write(bare, written, keys, decoding)
