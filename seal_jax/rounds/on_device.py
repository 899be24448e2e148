"""One round of ReST-EM as one program: a pure function of arrays, for small models.

    state, metrics = round_step(state, inputs, cfg=cfg)

proposes, adapts, answers, grades, selects, imitates and merges without the host. So
`jax.lax.scan` runs the rounds of an experiment, `jax.vmap` or `jax.lax.map` many
experiments, and `jit` spreads them over a mesh. The texts stay token ids, which a
word-level tokenizer allows (`token_forms`). Given the same keys and `draws`, it writes,
keeps and learns what `rest_em.one_round` does.

What it costs: adapters march in step, one line each, all padded to the longest line.
The packed engine (`training.packed`) has no such pads; it is for real sizes.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from seal_jax.generation import plain, sample
from seal_jax.models import decoder, lora
from seal_jax.rounds import in_step, select, token_steps, trials
from seal_jax.rounds.draws import Draws
from seal_jax.rounds.token_forms import Sheet, Sizes, Words
from seal_jax.rounds.token_steps import Text
from seal_jax.training import inner
from seal_jax.training.settings import ImitateConfig


@dataclasses.dataclass(frozen=True)
class RoundConfig:
    """What the program is compiled for.

    `edits` of each passage, `seeds` of each edit. `chunk`: adapters that march
    together; the more, the more memory. `mesh` shares each chunk, or is None.
    `keep_adapters`: whether the metrics have them.
    """

    arch: decoder.Arch
    inner: inner.EngineConfig
    clip: float
    propose: sample.SampleConfig
    answer: sample.SampleConfig
    imitate: ImitateConfig
    rule: select.Rule
    sizes: Sizes
    edits: int
    seeds: int
    eos: int
    chunk: int
    mesh: Mesh | None = None
    keep_adapters: bool = False


# The leaves of these are numpy arrays on the host, and jax arrays in the program.
class Inputs(NamedTuple):
    """What a round reads besides the policy; a leading axis more for many rounds.

    `seed` is the run's and `index` the round's, uint32 `[]`. `least_P`: right answers
    over all seeds that an edit needs to be kept. `rates`, `[L, steps]`:
    learning rates of adapters by the number of their lines.
    """

    seed: Any
    index: Any
    sheet: Sheet
    draws: Draws
    least_P: Any
    rates: Any
    words: Words

    @property
    def key(self) -> Array:
        return jax.random.key(self.seed)


class State(NamedTuple):
    """What goes from round to round: the policy's parameters."""

    params: dict


class Edits(NamedTuple):
    """Self-edits: `text` of ids `[P, E, N]`, and which were refused."""

    text: Text
    refused_PE: Any


class Trials(NamedTuple):
    """What adapters did, leaves `[P, E, S]`.

    `right` counts right answers and `empty` those without text, both 0 where the
    adapter `failed` or its edit was refused. `loss` is the mean over its steps.
    """

    right: Any
    empty: Any
    failed: Any
    loss: Any


class Surprise(NamedTuple):
    """How unlikely the policy finds its edits; see `policies.Surprise`."""

    nats_PE: Any
    tokens_PE: Any


class Metrics(NamedTuple):
    """What a round did. `kept_PK` are places of edits, -1 where there is none.

    `surprise` is of the policy that wrote the edits. `baseline_P` counts right answers
    without an adapter; `losses` are those of imitation's steps, NaN behind the last.
    `adapters` are as applied, `[P, E, S, ...]`, or None.
    """

    edits: Edits
    surprise: Surprise
    trials: Trials
    baseline_P: Any
    kept_PK: Any
    losses: Any
    adapters: lora.Tree | None = None


def round_step(
    state: State, inputs: Inputs, *, cfg: RoundConfig
) -> tuple[State, Metrics]:
    """One round; `rest_em` says what its steps mean."""
    edits = propose(state, inputs, cfg)
    unlikely = surprise(state, edits, inputs, cfg)
    adapted = adapt(state, edits, inputs, cfg)
    tried = answer_and_grade(state, adapted, edits, inputs, cfg)
    baseline_P, _ = without_adapter(state, inputs, cfg)
    kept_PK = choose(tried, edits, baseline_P, inputs, cfg)
    state, losses = imitate(state, edits, kept_PK, inputs, cfg, trials.IMITATE)
    shape = tried.right.shape
    adapters = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), adapted.deltas)
    kept = adapters if cfg.keep_adapters else None
    return state, Metrics(edits, unlikely, tried, baseline_P, kept_PK, losses, kept)


def random_step(
    state: State, inputs: Inputs, *, cfg: RoundConfig
) -> tuple[State, Array]:
    """The round of `control.random_kept`; the places of what was kept."""
    edits = propose(state, inputs, cfg)

    def draw(refused_E: Array, chosen: Array) -> Array:
        allowed_E = jnp.argsort(refused_E, stable=True)
        picks_K = chosen[jnp.sum(~refused_E)]
        return jnp.where(picks_K < 0, -1, allowed_E[picks_K])

    kept_PK = jax.vmap(draw)(edits.refused_PE, inputs.draws.chosen)
    state, _ = imitate(state, edits, kept_PK, inputs, cfg, trials.CONTROL)
    return state, kept_PK


def folded(key: Array, *numbers: Array | int) -> Array:
    """`key` folded with each number in turn, as `policies.fold` does."""
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return key


def propose(state: State, inputs: Inputs, cfg: RoundConfig) -> Edits:
    """Step 1: what the policy writes about each passage, `cfg.edits` times."""
    sheet, words = inputs.sheet, inputs.words
    passages, tokens = len(sheet.prompt), cfg.propose.max_tokens

    def key(p: Array, e: Array) -> Array:
        return folded(inputs.key, trials.PROPOSE, inputs.index, p, e)

    keys_PE = _grid(key, passages, cfg.edits)
    written = plain.continued(
        state.params,
        None,
        sheet.prompt,
        sheet.prompt_size,
        keys_PE,
        arch=cfg.arch,
        cfg=cfg.propose,
    )
    ids = jnp.pad(written.ids_BN, ((0, 0), (0, max(0, cfg.sizes.fixed - tokens))))
    text = jax.vmap(token_steps.read, (0, 0, None))(ids, written.count_B, words)
    text = jax.tree.map(lambda x: x.reshape(*keys_PE.shape, *x.shape[1:]), text)
    blank = jax.vmap(jax.vmap(token_steps.is_blank, (0, None)), (0, None))
    return Edits(text, blank(text, words))


def surprise(state: State, edits: Edits, inputs: Inputs, cfg: RoundConfig) -> Surprise:
    """How unlikely the policy finds what it wrote: `policies.surprise` of each edit.

    The texts are read once more, as what was drawn may have had whitespace around it.
    """
    shape = edits.refused_PE.shape
    texts = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), edits.text)
    prompts = Text(inputs.sheet.prompt, inputs.sheet.prompt_size)
    prompts = jax.tree.map(lambda x: jnp.repeat(x, shape[1], axis=0), prompts)
    rows = in_step.imitation_rows(prompts, texts, eos=cfg.eos)
    # Where the settings ended a text the policy drew no end-of-text.
    ended_B1 = (texts.size < cfg.propose.max_tokens)[:, None]
    last_BT = jnp.pad(rows["segments"][:, 1:], ((0, 0), (0, 1)), constant_values=-1) < 0
    own_BT = (rows["weights"] > 0) & (ended_B1 | ~last_BT)
    nats_B = in_step.in_chunks(
        lambda row: in_step.nats(state.params, *row, arch=cfg.arch),
        (rows, own_BT),
        cfg.chunk,
        cfg.mesh,
    )
    return Surprise(nats_B.reshape(shape), own_BT.sum(1).reshape(shape))


def adapt(
    state: State, edits: Edits, inputs: Inputs, cfg: RoundConfig
) -> in_step.Adapted:
    """Step 2: an adapter for each edit and seed, on its lines and the passage."""
    sheet, words, sizes = inputs.sheet, inputs.words, cfg.sizes
    passages, each = edits.refused_PE.shape
    most = inputs.rates.shape[0]

    def lines(text: Text, head: Text, passage: Text) -> token_steps.Lines:
        texts = token_steps.split(text, words, lines=most - 1, width=sizes.line)
        return token_steps.training_lines(texts, head, passage, width=sizes.line)

    head = Text(sheet.head, sheet.head_size)
    passage = Text(sheet.passage, sheet.passage_size)
    lines_PE = jax.vmap(jax.vmap(lines, (0, None, None)))(edits.text, head, passage)
    # One that was refused trains nothing: it takes no steps.
    count_PE = jnp.where(edits.refused_PE, 0, lines_PE.number)
    lines_PE = lines_PE._replace(number=count_PE)

    def key(p: Array, e: Array, s: Array) -> Array:
        return folded(inputs.key, trials.ADAPT, inputs.index, p, e, s)

    jobs = in_step.Jobs(
        _grid(key, passages, each, cfg.seeds),
        jax.tree.map(lambda x: _for_seeds(x, cfg.seeds), lines_PE),
        inputs.draws.orders[:, :each],
    )
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), jobs)
    return in_step.adapt(
        state.params,
        flat,
        inputs.rates,
        arch=cfg.arch,
        cfg=cfg.inner,
        clip=cfg.clip,
        eos=cfg.eos,
        chunk=cfg.chunk,
        mesh=cfg.mesh,
    )


def answer_and_grade(
    state: State,
    adapted: in_step.Adapted,
    edits: Edits,
    inputs: Inputs,
    cfg: RoundConfig,
) -> Trials:
    """Step 3: each adapter answers about its passage, closed-book, by word recall."""
    shape = (*edits.refused_PE.shape, cfg.seeds)

    def key(p: Array, e: Array, s: Array) -> Array:
        return folded(inputs.key, trials.ANSWER, inputs.index, p, e, s)

    def one(at: tuple) -> tuple[Array, Array]:
        delta, p, key = at
        return _exam(state.params, delta, p, key, inputs, cfg)

    place_PES = jnp.broadcast_to(jnp.arange(shape[0])[:, None, None], shape)
    asked = (adapted.deltas, place_PES.ravel(), _grid(key, *shape).ravel())
    marks = in_step.in_chunks(one, asked, cfg.chunk, cfg.mesh)
    none_A = adapted.failed | (adapted.lines == 0)
    right, empty = (jnp.where(none_A, 0, mark) for mark in marks)
    return Trials(
        *(x.reshape(shape) for x in (right, empty, adapted.failed, adapted.loss))
    )


def without_adapter(
    state: State, inputs: Inputs, cfg: RoundConfig
) -> tuple[Array, Array]:
    """Right answers, and those without text, of the policy itself, `[P]` each."""

    def one(at: Array) -> tuple[Array, Array]:
        key = folded(inputs.key, trials.ANSWER, at)
        return _exam(state.params, None, at, key, inputs, cfg)

    return jax.vmap(one)(jnp.arange(len(inputs.sheet.prompts)))


def _exam(
    params: dict,
    delta: lora.Tree | None,
    passage: Array,
    key: Array,
    inputs: Inputs,
    cfg: RoundConfig,
) -> tuple[Array, Array]:
    """How many answers of one adapter are right, and how many have no text."""
    sheet, words = inputs.sheet, inputs.words
    size_Q = sheet.prompts_size[passage]
    keys_Q1 = _grid(lambda q, _: folded(key, q), len(size_Q), 1)
    written = plain.continued(
        params,
        delta,
        sheet.prompts[passage],
        size_Q,
        keys_Q1,
        arch=cfg.arch,
        cfg=cfg.answer,
    )
    text = jax.vmap(token_steps.read, (0, 0, None))(*written, words)
    right_Q = jax.vmap(token_steps.is_right, (0, 0, 0, None))(
        text, sheet.gold[passage], sheet.needed[passage], words
    )
    asked_Q = size_Q > 0
    return jnp.sum(right_Q & asked_Q), jnp.sum((text.size == 0) & asked_Q)


def choose(
    tried: Trials, edits: Edits, baseline_P: Array, inputs: Inputs, cfg: RoundConfig
) -> Array:
    """Step 4: the best edits of each passage, `[P, k_best]`, as `select.choose` does.

    Rewards are counts of right answers, whole numbers: equal shares tie exactly, as
    they do there after rounding.
    """
    least_P, ranks_PE = inputs.least_P, inputs.draws.ranks
    if cfg.rule.threshold == select.BASELINE:
        least_P = cfg.seeds * baseline_P + 1
    if cfg.rule.ties == "shortest":
        size = jax.vmap(jax.vmap(token_steps.characters, (0, None)), (0, None))
        ranks_PE = jnp.argsort(
            jnp.argsort(size(edits.text, inputs.words), axis=1, stable=True), axis=1
        )
    reward_PE = tried.right.sum(-1)
    able_PE = ~edits.refused_PE & (reward_PE >= least_P[:, None])
    value_PE = jnp.where(able_PE, reward_PE * cfg.edits + cfg.edits - 1 - ranks_PE, -1)
    best_PK, kept_PK = jax.lax.top_k(value_PE, cfg.rule.k_best)
    return jnp.where(best_PK < 0, -1, kept_PK)


def imitate(
    state: State,
    edits: Edits,
    kept_PK: Array,
    inputs: Inputs,
    cfg: RoundConfig,
    stage: int,
) -> tuple[State, Array]:
    """Step 5: the policy learns to write what was kept; it stays where nothing was."""
    sheet = inputs.sheet
    place_P = jnp.arange(len(kept_PK))[:, None]
    text = jax.tree.map(lambda x: x[place_P, kept_PK], edits.text)
    texts = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), text)
    prompts = Text(sheet.prompt, sheet.prompt_size)
    prompts = jax.tree.map(lambda x: jnp.repeat(x, kept_PK.shape[1], axis=0), prompts)
    lines = in_step.imitation_rows(prompts, texts, eos=cfg.eos)
    kept = kept_PK.ravel() >= 0
    first = jnp.argsort(~kept, stable=True)
    count = jnp.sum(kept)
    delta, losses = in_step.imitate(
        state.params,
        jax.tree.map(lambda x: x[first], lines),
        inputs.draws.batches[count],
        folded(inputs.key, stage, inputs.index),
        arch=cfg.arch,
        # A control imitates, whatever the rule.
        cfg=cfg.imitate if stage == trials.CONTROL else cfg.imitate.by_rule,
    )
    merged = lora.merge(state.params, delta)
    params = jax.tree.map(
        lambda new, old: jnp.where(count > 0, new, old), merged, state.params
    )
    return State(params), losses


def _grid(key: object, *shape: int) -> Array:
    """`key(i, j, ...)` for every index of the shape."""
    places = jnp.meshgrid(*map(jnp.arange, shape), indexing="ij")
    made = key
    for _ in shape:
        made = jax.vmap(made)  # pyright: ignore
    return made(*places)  # pyright: ignore


def _for_seeds(leaf_PE: Array, seeds: int) -> Array:
    shape = leaf_PE.shape
    return jnp.broadcast_to(leaf_PE[:, :, None], (*shape[:2], seeds, *shape[2:]))
