"""Pretraining on generated worlds: a tokenizer, a decoder, and the steps.

Documents are drawn by step, so a run that is stopped continues where it was.
"""

import functools
import json
import os
import random
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# transformers advises to install torch when it is imported; here it never is.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from seal_jax.embedded.settings import CORPORA, PretrainConfig
from seal_jax.models import decoder, hf, key_ranges
from seal_jax.runtime import checkpoint, files, interrupts, reading
from seal_jax.tasks.passage import Corpus, Pieces
from seal_jax.training import sft_rows

EOS, UNKNOWN = "<eos>", "<unk>"


def build_tokenizer(corpus: Corpus) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the corpus's words, in Hugging Face's format."""
    words = [EOS, UNKNOWN, *corpus.words]
    vocab = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(corpus.pattern.pattern), behavior="removed", invert=True
    )
    # Words are joined by spaces; marks and line breaks are then pulled back in.
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=True),
            decoders.Fuse(),
            decoders.Replace(" :", ":"),
            decoders.Replace(" \n", "\n"),
            decoders.Replace("\n ", "\n"),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS, unk_token=UNKNOWN
    )


def encode(
    pieces: Pieces, pattern: re.Pattern[str], vocab: dict[str, int]
) -> sft_rows.Line:
    """A document's token ids and the loss weight of predicting each of them.

    Raises:
      KeyError: a word that the vocabulary lacks.
    """
    ids, weights = [], []
    for text, weight in pieces:
        words = [EOS] if text is None else pattern.findall(text)
        ids += [vocab[word] for word in words]
        weights += [weight] * len(words)
    return sft_rows.Line(ids, weights)


def pack(
    lines: Sequence[sft_rows.Line], *, rows: int, row_tokens: int, eos: int
) -> dict[str, np.ndarray]:
    """Lays documents into a fixed number of rows; what does not fit is left out.

    First fit, in their order: the rows of the shipped models were laid so, and
    `sft_rows.pack`, a best fit, would give others.

    Args:
      lines: a document each (`encode`), with the weights of its targets.
      rows: B.
      row_tokens: T.
      eos: end-of-text id.

    Returns:
      The arrays `[B, T]` of `sft_rows.lay`.
    """
    used, laid, first = [0] * rows, [], []
    for line in lines:
        n = line.positions
        row = next((r for r in range(rows) if used[r] + n <= row_tokens), None)
        if row is None:
            continue
        laid.append(line)
        first.append(row * row_tokens + used[row])
        used[row] += n
    return sft_rows.lay(laid, first, shape=(rows, row_tokens), eos=eos)


def draw_batch(
    cfg: PretrainConfig, step: int, corpus: Corpus, vocab: dict[str, int]
) -> dict:
    """The batch of one step, a pure function of the seed and the step."""
    rng = random.Random(f"pretrain {cfg.seed} {step}")
    docs, total = [], 0
    while total < 1.3 * cfg.rows * cfg.row_tokens:
        doc = corpus.document(rng, step / cfg.steps)
        docs.append(encode(doc, corpus.pattern, vocab))
        total += len(docs[-1].ids)
    return pack(docs, rows=cfg.rows, row_tokens=cfg.row_tokens, eos=vocab[EOS])


def _logits(params: dict, batch: dict, arch: decoder.Arch) -> jax.Array:
    """Of packed rows, float32 `[B, T, V]`; a document sees itself alone."""
    segments = batch["segments"]
    ranges = key_ranges.of_lines(segments, segments >= 0)
    hidden, _ = decoder.hidden(
        params, None, arch, batch["tokens"], batch["positions"], ranges
    )
    return decoder.logits(params, arch, hidden)


def loss_fn(params: dict, batch: dict, arch: decoder.Arch) -> jax.Array:
    """Weighted cross-entropy over packed rows with block-diagonal causal attention."""
    logits = _logits(params, batch, arch)
    ce = optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"])
    return jnp.sum(ce * batch["weights"]) / jnp.sum(batch["weights"])


def make_schedule(cfg: PretrainConfig, peak: float) -> optax.Schedule:
    """Warm-up, constant, then linear decay over the last `decay_share` of the run."""
    decay = int(cfg.decay_share * cfg.steps)
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, peak, cfg.warmup),
            optax.constant_schedule(peak),
            optax.linear_schedule(peak, 0.02 * peak, decay),
        ],
        [cfg.warmup, cfg.steps - decay],
    )


def make_optimizer(cfg: PretrainConfig) -> optax.GradientTransformation:
    """Muon for the layers' matrices, Adam for the rest (Jordan et al. 2024).

    At this size Muon reached AdamW's loss in about half the steps, for 10 % more time.
    """
    matrix = optax.contrib.MuonDimensionNumbers(reduction_axis=0, output_axis=1)

    # Any: optax's type of this argument has no room for a function of trees.
    def of_layers(params: Any) -> Any:
        def kind(path: tuple, leaf: Any) -> Any:
            in_a_layer = path[0].key.startswith("layers_")
            return matrix if in_a_layer and leaf.ndim == 2 else None

        return jax.tree_util.tree_map_with_path(kind, params)

    return optax.contrib.muon(
        make_schedule(cfg, cfg.muon_learning_rate),
        ns_steps=4,
        weight_decay=cfg.weight_decay,
        adam_b2=0.98,
        adam_learning_rate=make_schedule(cfg, cfg.adam_learning_rate),
        muon_weight_dimension_numbers=of_layers,
    )


@functools.partial(jax.jit, static_argnames=("cfg", "arch"), donate_argnums=(0,))
def train_chunk(state: tuple, batches: dict, cfg: PretrainConfig, arch) -> tuple:
    """A few optimizer steps in one scan; `batches` carry a leading step axis."""
    optimizer = make_optimizer(cfg)

    def step(state: tuple, batch: dict) -> tuple:
        params, opt_state = state
        loss, grads = jax.value_and_grad(loss_fn)(params, batch, arch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    return jax.lax.scan(step, state, batches)


def architecture(cfg: PretrainConfig, vocab: int) -> decoder.Arch:
    """A small Llama: AutoTokenizer replaces the tokenizer of a small Qwen2."""
    return decoder.Arch(
        family="llama",
        vocab=vocab,
        width=cfg.width,
        layers=cfg.layers,
        heads=cfg.heads,
        kv_heads=cfg.heads,
        head_dim=cfg.width // cfg.heads,
        ff=cfg.ff,
        max_position=cfg.max_position,
        rope_theta=cfg.rope_theta,
        tied=True,
    )


def init_params(seed: int, arch: decoder.Arch) -> dict:
    """Random parameters in which a few heads already form an induction circuit.

    In trials with drafts of the corpus, a plain random start did not begin to bind
    values to their subjects within about six million tokens. Here layer 0 has heads
    that attend one and two tokens back and store what they see in subspaces of their
    own; heads of layer 1 match those subspaces and copy. In the spirit of mimetic
    initialization (Trockman and Kolter 2023); everything stays trainable.
    """
    rng = np.random.default_rng(seed)
    params = jax.tree.map(np.array, decoder.init_params(jax.random.key(seed), arch))
    layers = [params[decoder.layer_name(i)] for i in range(arch.layers)]
    d, h = arch.width, arch.head_dim
    for name, (fan_in, _) in arch.linears().items():
        gain = fan_in**-0.5 / 0.02
        if name in ("o_proj", "down_proj"):
            gain /= (2 * arch.layers) ** 0.5
        for layer in layers:
            layer[name]["kernel"] *= gain
    # Embeddings: the first half of the width, less one dimension that is constant.
    content, constant = d // 2 - 1, d // 2 - 1
    params["embed"] *= 0.127 / 0.02
    params["embed"][:, content:] = 0.0
    params["embed"][:, constant] = 1.0

    def subspace() -> np.ndarray:
        basis = np.zeros((d, h))
        basis[:content] = np.linalg.qr(rng.normal(size=(content, h)))[0]
        return basis

    def unrotated(basis: np.ndarray) -> np.ndarray:
        # Rotary pairs from the sixth on turn slowly enough to compare content.
        keep = np.tile(np.arange(h // 2) >= 5, 2)
        slow = np.zeros_like(basis)
        slow[:, keep] = basis[:, : keep.sum()]
        return slow

    def put(layer: int, head: int, **kernels: np.ndarray) -> None:
        span = slice(head * h, (head + 1) * h)
        for name, kernel in kernels.items():
            if name == "o":
                layers[layer]["o_proj"]["kernel"][span] = kernel.T
            else:
                layers[layer][f"{name}_proj"]["kernel"][:, span] = kernel

    shared = subspace()
    stored = [np.eye(d)[:, d // 2 + i * h : d // 2 + (i + 1) * h] for i in (0, 1)]
    turn = np.arange(h // 2) < 3
    angles = np.asarray(decoder.rope_frequencies(arch))
    for head, back in enumerate((1, 2)):
        q, k = np.zeros((d, h)), np.zeros((d, h))
        q[constant] = np.concatenate([turn, 0 * turn]) * 6.0
        seen = [turn * np.cos(back * angles), turn * np.sin(back * angles)]
        k[constant] = np.concatenate(seen) * 6.0
        put(0, head, q=q, k=k, v=shared, o=0.3 * stored[head])
    value, back1, back2 = (
        unrotated(shared),
        unrotated(stored[0]),
        unrotated(stored[1]),
    )
    for head, (q, k) in enumerate(((back1, back2), (value, back1))):
        copied = subspace()
        put(1, head, q=2 * q, k=2 * k, v=copied, o=0.3 * copied)
    for layer in (1, 2):
        put(layer, 2, q=2 * back1, k=2 * value)
    return jax.tree.map(jnp.asarray, params)


@functools.partial(jax.jit, static_argnames="arch")
def _correct(params: dict, batch: dict, arch: decoder.Arch) -> jax.Array:
    return jnp.argmax(_logits(params, batch, arch), -1) == batch["targets"]


def probe(
    params: dict, arch: decoder.Arch, corpus: Corpus, vocab: dict, *, count: int
) -> dict[str, float]:
    """Share of the answers' tokens that are the argmax, by kind of document."""
    kinds = corpus.probes(random.Random("probe"))
    scores = {}
    for name, make in kinds.items():
        docs = [encode(make(), corpus.pattern, vocab) for _ in range(count)]
        width = 192
        first = range(0, count * width, width)
        batch = sft_rows.lay(docs, first, shape=(count, width), eos=vocab[EOS])
        hit = np.asarray(_correct(params, batch, arch))
        scores[name] = float(hit[batch["weights"] == np.float32(corpus.value)].mean())
    return scores


def run(cfg: PretrainConfig, workdir: Path) -> None:
    """Trains to the end, from the newest checkpoint if there is one.

    Writes pretrain.jsonl (a row per chunk: step, loss, tokens, seconds, and at every
    checkpoint what `probe` finds), checkpoints, and in the end the model.
    """
    with files.disk_errors(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    corpus = CORPORA[cfg.corpus]()
    tokenizer = build_tokenizer(corpus)
    vocab = tokenizer.get_vocab()
    arch = architecture(cfg, len(vocab))
    params = init_params(cfg.seed, arch)
    state = (params, make_optimizer(cfg).init(params))
    step = checkpoint.latest(workdir / "checkpoints") or 0
    if step:
        state, _ = checkpoint.restore(workdir / "checkpoints", step, state)
    log = workdir / "pretrain.jsonl"
    if log.exists():  # Chunks after the checkpoint are trained, and logged, again.
        with reading.boundary(log, wrong="altered", fix="delete it, and run it again"):
            rows = [r for r in files.read_jsonl(log) if r["step"] <= step]
        files.write_jsonl(log, rows)
    while step < cfg.steps:
        interrupts.check()
        begin = time.monotonic()
        drawn = [draw_batch(cfg, step + i, corpus, vocab) for i in range(cfg.chunk)]
        batches = jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)
        tokens = int((batches["segments"] >= 0).sum())
        state, losses = train_chunk(state, batches, cfg, arch)
        step += cfg.chunk
        row = {"step": step, "loss": float(np.mean(losses)), "tokens": tokens}
        row["seconds"] = time.monotonic() - begin
        due = step % (cfg.checkpoint_every * cfg.chunk) == 0 or step >= cfg.steps
        if due:
            row |= probe(state[0], arch, corpus, vocab, count=64)
        with log.open("a") as out:
            print(json.dumps(row), file=out)
        print(json.dumps(row), flush=True)
        if due:
            checkpoint.save(workdir / "checkpoints", step, state, {"step": step})
    export(workdir / "model", arch, state[0], tokenizer)


def export(
    path: Path,
    arch: decoder.Arch,
    params: dict,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Writes the model directory: weights, config with the end token, tokenizer."""
    hf.save(path, arch, params)
    tokenizer.save_pretrained(path)
    described = files.read_json(path / "config.json")
    described["eos_token_id"] = tokenizer.eos_token_id
    files.write_json(path / "config.json", described)
