"""Learning on the job: by day a model answers from contexts, by night it learns.

    python -m seal_jax.train --config=configs/deploy.py --workdir=runs/deploy

64 models, each at a job of its own for 8 days. By day users ask about 3 contexts (SQuAD
passages), and the model answers with these in view; nothing is trained, it is only
logged (`sessions.jsonl`). Each night one adapter is trained on the day's log, and the
next morning the same questions are asked without the contexts. Meant for one 80 GB
accelerator; not run in full yet: `--dry_run` tells what it would cost.

    python -m seal_jax.train --config=configs/deploy.py:tiny --workdir=runs/job

is the same on the generated world with the embedded model, 8 streams of 5 days, and
more rows. `:debug` runs every kind of row on two streams of two days, in about a
minute.

    python -m seal_jax.train --config=configs/deploy.py --workdir=runs/mine \\
        --config.stream.logs=chats.jsonl --config.stream.probes=0

learns from logs as they were: see docs/deploy.md.

`arms` names the rows. Each begins with its rule, what a night trains on:

    none           nothing is learned; what it answers with contexts in view is the
                   ceiling of what puts them into weights
    edits          statements: the self-edit that the model writes about each context,
                   and the context (night.context: log, edit or both)
    distill_edits  ... by the divergence from the teacher, who has the context in view
    quiz           the users' questions with the answers that the model gave by day
    distill        ... by the divergence from the teacher
    on_policy      ... by that divergence on the model's own answers, without the
                   contexts, drawn anew in inner.teach.waves parts of the night
    mix            ... with answers drawn token by token, with the context in view or
                   without it

and may be joined by "+" with controls of configs/continual.py (gate, replay, kl,
orthogonal, keep; `merge` says that there are none), and with

    dream          beside the log, questions that the model asks itself about each
                   context (label_free.questions), those whose answer comes out again

Of each row the summary tells by night the share of questions answered: `learned`, the
day's; `kept`, those of all days before; `rephrased`, the day's facts in a form that no
training has seen; `unasked`, facts that no user asked; `in_context`, the day's with the
contexts in view; `general`, the probes, which no night is about; and `drift`, nats a
token from the un-edited model on texts that it wrote.
"""

from ml_collections import ConfigDict

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


# Related keys share a line.
# fmt: off
def get_config(arg: str | None = None) -> ConfigDict:
    """`arg`: nothing, "tiny" or "debug"."""
    if arg not in (None, "", "tiny", "debug"):
        raise ValueError(
            f"configs/deploy.py:{arg}: the variants are '', 'tiny' and 'debug'"
        )
    config = ConfigDict(dict(
        seed=0,
        mesh=dict(data=0, model=1),
        watch=dict(writers=("tensorboard",), project="seal"),
        model=dict(
            path="Qwen/Qwen2.5-7B", random_weights=False, dtype="bfloat16",
            base_dtype="same", kernel="auto", attention="auto", chat="none",
        ),
        # Contexts are cut from `train`, the probes of general ability from `heldout`,
        # as in configs/continual.py.
        task=dict(
            name="squad", shuffle_seed=42, forward_share=0.0,
            train="rajpurkar/squad", train_split="validation", train_start=0,
            heldout="rajpurkar/squad", heldout_split="train", heldout_start=1000,
        ),
        # logs: a file of sessions in place of passages. asked: of a passage's questions
        # those that users ask.
        stream=dict(logs="", count=64, days=8, sessions=3, asked=3, probes=10),
        # context: log, edit or both. teacher: base or previous.
        night=dict(context="both", teacher="base"),
        propose=dict(
            prompt="implications", temperature=1.0, top_p=0.95, top_k=0,
            min_tokens=1, max_tokens=2048, prompt_multiple=128, batch=64,
        ),
        # What the model asks itself in a row that dreams.
        label_free=dict(
            rubric="rules", samples=4, questions=10,
            quiz=dict(
                prompt="ask", temperature=1.0, top_p=0.95, top_k=0,
                min_tokens=0, max_tokens=512, prompt_multiple=128, batch=64,
            ),
        ),
        edit=dict(split="lines", quirks="fixed"),
        inner=dict(
            lora=dict(targets=("q_proj", "v_proj"), rank=32, alpha=64.0),
            learning_rate=1e-3, epochs=10, clip=1.0,
            loss=dict(mode="masked", pad_to=2048, pad_samples=0),
            tile=1, row_tokens=1024, step_tokens=0, slots=0, active=0,
            chunk_tokens=512, pool=0,
            # The rows name the rules. The choices of each key: configs/squad.py.
            rule="edits",
            teach=dict(
                rates=dict(
                    edits=0.0, quiz=0.0, distill=0.0, distill_edits=0.0,
                    on_policy=0.0, mix=0.0,
                ),
                passage_line=False, divergence="forward", beta=0.5, skip=0,
                waves=5, temperature=1.0, mix=0.5, tokens=0,
            ),
        ),
        answer=dict(
            prompt="concise", temperature=0.0, top_p=1.0, top_k=0,
            min_tokens=0, max_tokens=64, prompt_multiple=32, batch=384,
        ),
        # A judge: see configs/squad.py.
        grade=dict(name="recall", threshold=0.6, max_missing=0.02),
        # Strengths of the controls: see configs/continual.py.
        retain=dict(
            replay=8, kl=1.0, kl_texts=64, kl_tokens=64, orthogonal=0.5,
            gate_budget=0.07, gate_steps=5, gate_least=0.1, keep_floor=0.4,
        ),
        # The rows, as the head of this file tells them.
        arms=("none", "edits", "quiz"),
    ))
    if arg in ("tiny", "debug"):
        tiny(config)
    return debug(config) if arg == "debug" else config


def tiny(config: ConfigDict) -> None:
    """The generated world and the embedded model, with the settings of tiny.py."""
    config.update(dict(
        model=dict(path="embedded:tiny", dtype="float32"),
        task=dict(
            name="world", forward_share=0.2, train="", train_split="",
            heldout="", heldout_split="", heldout_start=0,
        ),
        # Of the six facts of a passage users ask four.
        stream=dict(count=8, days=5, asked=4, probes=4),
        propose=dict(
            prompt="plain", top_p=1.0, min_tokens=0, max_tokens=64, prompt_multiple=64,
            batch=120,
        ),
        label_free=dict(
            questions=6,
            quiz=dict(
                prompt="plain", top_p=1.0, max_tokens=96, prompt_multiple=64, batch=120,
            ),
        ),
        # All streams step together, as in configs/continual.py.
        inner=dict(
            lora=dict(targets=ALL, rank=4, alpha=8.0), learning_rate=1e-2,
            loss=dict(pad_to=128),
            tile=4, row_tokens=64, step_tokens=128, slots=8, active=8,
            chunk_tokens=0, pool=8,
            teach=dict(
                rates=dict(quiz=3e-3, distill=3e-3, on_policy=3e-3, mix=3e-3),
            ),
        ),
        answer=dict(prompt="plain", max_tokens=4, prompt_multiple=20, batch=720),
        retain=dict(
            replay=16, kl=4.0, kl_tokens=32, orthogonal=10.0, gate_budget=0.02,
            keep_floor=0.45,
        ),
        arms=(
            "none", "edits", "edits+replay", "quiz", "quiz+replay", "quiz+kl",
            "quiz+keep", "quiz+dream", "distill", "on_policy", "on_policy+replay",
        ),
    ))
    config.task.shuffle_seed = config.get_ref("seed")


def debug(config: ConfigDict) -> ConfigDict:
    """Every stage, on two streams of two days."""
    config.update(dict(
        stream=dict(count=2, days=2, sessions=2, probes=2),
        propose=dict(batch=4),
        label_free=dict(quiz=dict(batch=4)),
        inner=dict(
            lora=dict(targets=("q_proj", "v_proj")), epochs=2,
            slots=2, active=2, pool=2, teach=dict(waves=2),
        ),
        answer=dict(batch=24),
        retain=dict(kl_texts=4, kl_tokens=16, gate_steps=1),
        arms=(
            "none", "edits+replay+gate", "quiz+keep", "distill+dream",
            "on_policy+replay",
        ),
    ))
    return config
