"""The embedded model's corpus, tokenizer, packing, and the file that ships."""

import dataclasses
import random
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seal_jax.embedded import grids_corpus, pretraining, settings, world_corpus
from seal_jax.models import decoder, hf, key_ranges
from seal_jax.tasks import world
from seal_jax.tasks.arc import self_edit as arc_edit
from seal_jax.tasks.passage import Pieces
from seal_jax.training import sft_rows

CORPORA = {name: make() for name, make in settings.CORPORA.items()}
SMALL = settings.PretrainConfig(
    corpus="world",
    seed=0,
    steps=4,
    chunk=2,
    checkpoint_every=10,
    rows=2,
    row_tokens=192,
    muon_learning_rate=0.02,
    adam_learning_rate=3e-3,
    warmup=1,
    decay_share=0.5,
    weight_decay=0.02,
    width=128,
    layers=3,
    heads=4,
    ff=64,
    rope_theta=1e6,
    max_position=512,
)


@pytest.fixture(scope="module")
def tokenizer():
    return pretraining.build_tokenizer(CORPORA["world"])


def documents(count: int, corpus: str = "world") -> list[Pieces]:
    rng = random.Random(0)
    document = CORPORA[corpus].document
    return [document(rng, progress) for progress in np.linspace(0, 1, count)]


def encode(pieces: Pieces, vocab: dict[str, int], corpus: str = "world"):
    return pretraining.encode(pieces, CORPORA[corpus].pattern, vocab)


def test_a_corpus_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"corpus='words' must be one of \('world', "):
        dataclasses.replace(SMALL, corpus="words")


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_document_tokenizes_without_unknowns_and_round_trips(corpus):
    tokenizer = pretraining.build_tokenizer(CORPORA[corpus])
    vocab = tokenizer.get_vocab()
    for pieces in documents(300, corpus):
        text = "".join(piece or "" for piece, _ in pieces)
        ids, weights = encode(pieces, vocab, corpus)
        assert vocab[pretraining.UNKNOWN] not in ids
        assert len(ids) == len(weights)
        # Our own splitting is the tokenizer's.
        assert [i for i in ids if i != vocab[pretraining.EOS]] == hf.encode(
            tokenizer, text
        )
        again = hf.decode(tokenizer, hf.encode(tokenizer, text))
        # Grids come back with more room between their marks.
        assert again == text or (corpus == "grids" and bare(again) == bare(text))


def bare(text: str) -> str:
    return text.replace(" ", "")


def test_the_author_of_self_edits_slips_sometimes():
    limits = arc_edit.EditLimits(1e-5, 1.0, 50, 60, 2)
    reasons = []
    for seed in range(400):
        (_, weight), (text, _), _ = grids_corpus.edit_document(random.Random(seed))
        assert weight == 0.0
        try:
            arc_edit.parse(text, limits)
        except arc_edit.InvalidEditError as error:
            reasons.append(error.reason)
    assert 0.1 < len(reasons) / 400 < 0.2
    found = {"not json", "missing key", "bad strategy", "wrong type"}
    assert set(reasons) == found


def test_pretraining_never_changes_a_colour():
    rng = random.Random(0)
    for _ in range(100):
        *shown, (answer, weight), _ = grids_corpus.solve_document(rng)
        assert weight == grids_corpus.VALUE
        query = shown[-1][0].rpartition("user\n")[2]
        assert query == answer.replace("#", " ->\nassistant\n")


def test_values_carry_the_full_weight_and_prompts_almost_none(tokenizer):
    known = world.known_residents()
    pieces = world_corpus.question_document(random.Random(1), known)
    assert [w for text, w in pieces if text is not None] == [
        world_corpus.PROMPT,
        world_corpus.VALUE,
    ]


def test_fresh_documents_never_name_a_resident_of_the_rounds():
    banned = {
        name
        for group in ("train", "heldout")
        for kind in ("person", "firm")
        for name in world.residents(group, kind)
    }
    for pieces in documents(300):
        text = "".join(piece or "" for piece, _ in pieces)
        assert not [name for name in banned if name in text]


def test_pack_keeps_documents_whole_and_apart():
    docs = [sft_rows.Line(range(10, 10 + n), [1.0] * n) for n in (5, 4, 7, 9, 3)]
    batch = pretraining.pack(docs, rows=2, row_tokens=8, eos=0)
    # 5 and 4 tokens make 4 and 3 positions of the first row; 7 make 6 of the second.
    # The 8 positions of 9 find no row, and the last document does not wait for them.
    assert batch["segments"].tolist() == [
        [0, 0, 0, 0, 1, 1, 1, -1],
        [2, 2, 2, 2, 2, 2, 3, 3],
    ]
    assert batch["tokens"][0].tolist() == [10, 11, 12, 13, 10, 11, 12, 0]
    assert batch["targets"][0].tolist() == [11, 12, 13, 14, 11, 12, 13, 0]
    assert batch["positions"][0].tolist() == [0, 1, 2, 3, 0, 1, 2, 0]
    assert batch["weights"][0].tolist() == [1, 1, 1, 1, 1, 1, 1, 0]


def test_a_packed_document_has_the_loss_it_has_alone(tokenizer):
    arch = pretraining.architecture(SMALL, len(tokenizer))
    params = pretraining.init_params(0, arch)
    docs = [encode(p, tokenizer.get_vocab()) for p in documents(3)]
    loss = jax.jit(pretraining.loss_fn, static_argnums=2)

    def total(some) -> float:
        batch = pretraining.pack(some, rows=1, row_tokens=512, eos=0)
        return float(loss(params, batch, arch) * batch["weights"].sum())

    apart = sum(total([doc]) for doc in docs)
    np.testing.assert_allclose(total(docs), apart, rtol=1e-5)


@pytest.mark.parametrize(
    "more, said",
    [
        ((), "--workdir=FOLDER must name"),
        (("--workdir={0}", "--config.stepz=3"), 'did you mean "steps"'),
        (("--workdir={0}", "--config.steps=abc"), "must be a whole number"),
        (("--workdir={0}/f",), "/f: cannot be written (File exists); move it away"),
        (("--workdir={0}", "extra"), "unexpected arguments ['extra']"),
    ],
)
def test_a_wrong_command_line_is_one_line(tmp_path, child_env, more, said):
    (tmp_path / "f").write_text("")
    command = [sys.executable, "-m", "seal_jax", "pretrain"]
    config = "--config=configs/tiny_pretrain.py"
    done = subprocess.run(
        [*command, config, *(word.format(tmp_path) for word in more)],
        capture_output=True,
        text=True,
        env=child_env,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert said in done.stderr


def test_flags_are_read_before_jax_is_imported(child_env):
    code = (
        "import runpy, sys\n"
        "sys.argv = ['pretrain', '--config=tiny_pretrain', '--workdir=x', 'extra']\n"
        "try:\n"
        "    runpy.run_module('seal_jax.embedded.pretrain', run_name='__main__')\n"
        "finally:\n"
        "    assert 'jax' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=child_env
    )
    assert done.returncode == 1 and "unexpected arguments ['extra']" in done.stderr


def test_a_stopped_run_continues_to_the_same_bits(tmp_path, monkeypatch):
    pretraining.run(SMALL, tmp_path / "whole")
    save = pretraining.checkpoint.save

    def stop_after_saving(*args):
        save(*args)
        raise KeyboardInterrupt

    part = dataclasses.replace(SMALL, checkpoint_every=1)
    monkeypatch.setattr(pretraining.checkpoint, "save", stop_after_saving)
    with pytest.raises(KeyboardInterrupt):
        pretraining.run(part, tmp_path / "part")
    monkeypatch.undo()
    pretraining.run(part, tmp_path / "part")
    for path in ("model.safetensors", "config.json", "tokenizer.json"):
        whole, parted = (tmp_path / d / "model" / path for d in ("whole", "part"))
        assert whole.read_bytes() == parted.read_bytes()


def test_the_initial_heads_look_one_and_two_tokens_back_and_match(tokenizer):
    arch = pretraining.architecture(SMALL, len(tokenizer))
    # A value that followed a name's verb is favoured when the name and verb return.
    text = "Ada Quill plays violin. Boris Fenn plays cello. Ada Quill plays"
    ids = jnp.array([hf.encode(tokenizer, text)])
    positions = jnp.arange(ids.shape[1])[None]
    ranges = key_ranges.causal(jnp.ones(ids.shape, bool))
    vocab = tokenizer.get_vocab()

    @jax.jit
    def margin(params):
        hidden, _ = decoder.hidden(params, None, arch, ids, positions, ranges)
        logits_V = decoder.logits(params, arch, hidden)[0, -1]
        return logits_V[vocab["violin"]] - logits_V[vocab["cello"]]

    # The rest is drawn and speaks as well: one draw's margin is by chance.
    margins = [float(margin(pretraining.init_params(seed, arch))) for seed in range(20)]
    error = np.std(margins, ddof=1) / len(margins) ** 0.5
    assert np.mean(margins) > 2 * error


@pytest.mark.parametrize(
    ("corpus", "variant", "shipped_as", "least"),
    [
        ("world", None, "tiny", {"memory": 0.9, "list_reversed": 0.8}),
        ("grids", "arc", "grids", {"copy": 0.98}),
        ("hops", "hops", "hops", {"memory": 0.98, "chain": 0.95, "few_chain": 0.95}),
    ],
)
def test_the_shipped_model_is_what_the_config_describes(
    root, corpus, variant, shipped_as, least
):
    sys.path.insert(0, str(root / "configs"))
    try:
        import tiny_pretrain
    finally:
        sys.path.pop(0)
    cfg = settings.PretrainConfig(**tiny_pretrain.get_config(variant).to_dict())
    assert cfg.corpus == corpus
    tokenizer = pretraining.build_tokenizer(CORPORA[corpus])
    path = hf.resolve(f"embedded:{shipped_as}")
    arch = hf.read_config(path, dtype="float32")
    assert arch == pretraining.architecture(cfg, len(tokenizer))
    shipped = hf.load_tokenizer(path)
    assert shipped.get_vocab() == tokenizer.get_vocab()
    assert hf.eos_id(shipped, path) == (tokenizer.eos_token_id,)
    params = hf.load_params(path, arch)
    vocab = shipped.get_vocab()
    scores = pretraining.probe(params, arch, CORPORA[corpus], vocab, count=32)
    for name, low in least.items():
        assert scores[name] > low
