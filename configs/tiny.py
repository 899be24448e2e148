"""The embedded default: two SEAL rounds on a generated world, on a laptop's CPU.

    make demo
    python -m seal_jax.train --config=configs/tiny.py --workdir=runs/tiny

A 0.9M-parameter model that ships with the package (`embedded:tiny`, pretrained by
`configs/tiny_pretrain.py`) reads passages about people and firms it has never met,
and learns to write self-edits that its own adapters learn from. Learning rates,
ranks and epochs are this model's own, not those of `configs/squad.py`.

    python -m seal_jax.train --config=configs/tiny.py:rounds --workdir=runs/rounds
    python -m seal_jax.train --config=configs/tiny.py:rewards --workdir=runs/rewards
    python -m seal_jax.train --config=configs/tiny.py:self_rewarding --workdir=runs/self
    python -m seal_jax.train --config=configs/tiny.py:seeds --workdir=runs/seeds
    python -m seal_jax.train --config=configs/tiny.py:rules --workdir=runs/rules

`:rounds` goes on for eight rounds of 24 passages (`benchmarks/eight_rounds.py` runs it
in variants). `:rewards` is one round with 8 seeds for each edit in which every other
reward is measured beside the true one (`python -m seal_jax agreement runs/rewards`).
`:self_rewarding` is four rounds in which the policy is rewarded by its own questions
and learns by DPO; the true reward is measured beside them and decides nothing. This
model cannot judge by a prompt, so `label_free.rubric="self"` is for larger ones.
`:seeds` is two smaller rounds for each of 16 seeds, the ladder with intervals over
them; each seed is one program (`seal_jax/rounds/on_device.py`). `:rules` rewards the
policy for quizzes that it writes, and compares what adapters can be trained on, and by
which loss (`inner.rule`); `--config.inner.rule` takes another rule for the rounds.

`:dreams` writes three times as many edits as it trains, and `:prompts` looks for a
prompt beside its rounds (docs/findings.md, "Dreams" and "Strategies").

On 2 CPU cores the first takes between two and four minutes. Expected, on 96 held-out
passages: base 0.07, in_context 1.00, passage_only 0.28, self_edits 0.46, round_1 0.65,
round_2 0.74, oracle 0.97.
"""

from ml_collections import ConfigDict

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


# Related keys share a line.
# fmt: off
def get_config(arg: str | None = None) -> ConfigDict:
    """`arg`: nothing, the name of a variant below, or "debug" (short)."""
    variants = {
        "rounds": rounds, "rewards": rewards, "self_rewarding": self_rewarding,
        "dreams": dreams, "prompts": prompts, "seeds": seeds, "rules": rules,
        "debug": debug,
    }
    if arg and arg not in variants:
        raise ValueError(
            f"configs/tiny.py:{arg}: the variants are '', 'rounds', 'rewards', "
            "'self_rewarding', 'dreams', 'prompts', 'seeds', 'rules' and 'debug'"
        )
    config = ConfigDict(dict(
        seed=0,
        mesh=dict(data=0, model=1),
        watch=dict(writers=("tensorboard",), project="seal"),
        model=dict(
            path="embedded:tiny", random_weights=False, dtype="float32",
            base_dtype="same", kernel="auto", attention="auto", chat="none",
        ),
        task=dict(
            name="world", shuffle_seed=0, forward_share=0.2,
            train="", train_split="", train_start=0,
            heldout="", heldout_split="", heldout_start=0,
        ),
        scale=dict(
            rounds=2, passages=48, edits=5, seeds=2,
            heldout_passages=96, heldout_edits=1, heldout_seeds=1,
        ),
        propose=dict(
            prompt="plain", temperature=1.0, top_p=1.0, top_k=0,
            min_tokens=0, max_tokens=64, prompt_multiple=64, batch=240, search=(),
        ),
        edit=dict(split="lines", quirks="fixed"),
        inner=dict(
            lora=dict(targets=ALL, rank=4, alpha=8.0),
            learning_rate=1e-2, epochs=10, clip=1.0,
            loss=dict(mode="masked", pad_to=128, pad_samples=0),
            tile=4, row_tokens=64, step_tokens=640, slots=120, active=64,
            chunk_tokens=0, pool=120,
            # What is learned of a self-edit, and by which loss: the choices of each
            # key are in configs/squad.py.
            rule="edits",
            teach=dict(
                rates=dict(
                    edits=0.0, quiz=3e-3, distill=3e-3, distill_edits=0.0,
                    on_policy=0.0, mix=3e-3,
                ),
                passage_line=False, divergence="forward", beta=0.5, skip=0,
                waves=5, temperature=1.0, mix=0.5, tokens=0,
            ),
        ),
        answer=dict(
            prompt="plain", temperature=0.0, top_p=1.0, top_k=0,
            min_tokens=0, max_tokens=4, prompt_multiple=20, batch=720,
        ),
        grade=dict(name="recall", threshold=0.6, max_missing=0.02),
        # What the policy asks itself, for inner rules that ask and as a reward.
        label_free=dict(
            rubric="rules", samples=4, questions=6,
            quiz=dict(
                prompt="plain", temperature=1.0, top_p=1.0, top_k=0,
                min_tokens=0, max_tokens=96, prompt_multiple=64, batch=240,
            ),
        ),
        # The choices of each key: configs/squad.py.
        select=dict(
            reward="grade", compare=(), k_best=1, ties="first", threshold="none",
            halving=(), novelty_bonus=0.0, max_copied=1.0, max_overlap=1.0,
            prefilter=(), objective="mean",
        ),
        imitate=dict(
            start="previous", data="replace",
            lora=dict(targets=ALL, rank=16, alpha=32.0),
            learning_rate=3e-3, schedule="linear", epochs=6, clip=1.0,
            batch=8, micro_batch=8, length_multiple=128,
            # Rates by a pilot on another seed. A clip of 0.2 keeps a round to a fifth
            # of the way: there are few rounds, not many steps between them.
            rule="best",
            prefer=dict(
                rates=dict(positive=0.0, dpo=1e-3, ipo=1e-3, grpo=1e-3, rloo=1e-3),
                most=5, shrink=True, margin=2.0, beta=0.1, nll=0.1, per_token=False,
                clip=0.0, kl=0.0, std=True, tilt=0.0,
            ),
        ),
        stop=dict(rule="none", patience=2, z=2.0),
        ladder=(
            "base", "in_context", "passage_only", "sentence_split", "self_edits",
            "random_kept", "oracle",
        ),
    ))
    config.task.shuffle_seed = config.get_ref("seed")
    if arg:
        variants[arg](config)
    return config


def rounds(config: ConfigDict) -> None:
    """Eight rounds."""
    config.scale.update(rounds=8, passages=24)
    config.ladder = ("base", "self_edits")


def rewards(config: ConfigDict) -> None:
    """One round in which every other reward is measured beside the true one."""
    config.scale.update(rounds=1, seeds=8)
    config.select.compare = ("log_likelihood", "majority", "self_asked", "rubric")
    config.ladder = ("base", "self_edits")


def self_rewarding(config: ConfigDict) -> None:
    """Four rounds by what the policy asks itself, learned by DPO; no label decides."""
    config.scale.update(rounds=4, passages=16, heldout_passages=48)
    config.select.update(reward="self_asked", compare=("grade",))
    config.imitate.rule = "dpo"
    config.imitate.prefer.rates.dpo = 1e-3
    config.ladder = ("base", "self_edits")


def dreams(config: ConfigDict) -> None:
    """Two rounds that write 15 edits and train 5, most of them by their gradient."""
    config.propose.batch = 360
    config.select.update(prefilter=("gradient", 15, 3, 2), compare=("gradient",))
    config.ladder = ("base", "self_edits")


def prompts(config: ConfigDict) -> None:
    """Two rounds, beside a search for the best beginning of a list."""
    config.scale.update(passages=24, seeds=1)
    config.propose.search = (
        "plain", "plain-forward", "plain-noun", "plain-backward", "plain-vague",
    )
    config.ladder = ("base", "self_edits", "prompts")


def rules(config: ConfigDict) -> None:
    """Two rounds that reward quizzes, and a row for every other inner rule."""
    config.inner.rule = "quiz"
    config.ladder = (
        "base", "in_context", "passage_only", "self_edits", "edits", "distill_edits",
        "distill", "on_policy", "mix", "random_kept", "oracle",
    )


def seeds(config: ConfigDict) -> None:
    """Sixteen seeds, two seeds to an entry of the journal."""
    config.scale.update(passages=24, seeds=1, heldout_passages=24)
    # No line of a passage is longer; a step of all adapters is as wide as this.
    config.inner.update(row_tokens=56, step_tokens=560)
    # A passage in view has no form on tokens.
    config.ladder = tuple(row for row in config.ladder if row != "in_context")
    config.over_seeds = ConfigDict(dict(count=16, chunk=2, together=1, march=24))


def debug(config: ConfigDict) -> None:
    """Every stage, on a few passages."""
    two = dict(targets=("q_proj", "v_proj"))
    config.update(dict(
        scale=dict(passages=4, edits=2, seeds=1, heldout_passages=4),
        # Programs of two projections compile in a third of the time.
        inner=dict(lora=two, slots=8, active=8, pool=8, epochs=2),
        propose=dict(batch=8),
        answer=dict(batch=24),
        # One seed does not tell what of a reward is luck.
        imitate=dict(lora=two, epochs=1, prefer=dict(shrink=False, margin=0.0)),
    ))
