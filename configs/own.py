r"""Your own texts, with questions or without: a folder, a table, or a hub name.

    seal-jax train --config=configs/own.py --workdir=runs/notes \
        --config.task.train=notes/
    seal-jax train --config=configs/own.py --workdir=runs/table \
        --config.task.train=notes.csv --config.task.columns.text=body
    seal-jax train --config=configs/own.py:asked --workdir=runs/asked \
        --config.task.train=train.parquet --config.task.heldout=test.parquet

SmolLM2-135M-Instruct writes self-edits about 12 passages and puts a quiz of its own to
the adapters that are trained on them: no gold answer is needed. `:asked` is for data
with questions: the grade decides, and the ladder is walked on held-out passages.
`:tiny` is each stage with the model in the package, which knows few words.
Docs: docs/own_data.md. Not measured on any data yet.
"""

from ml_collections import ConfigDict

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


# Related keys share a line.
# fmt: off
def get_config(arg: str | None = None) -> ConfigDict:
    """`arg`: nothing, "asked", or "tiny" for a short run."""
    variants = {"asked": asked, "tiny": tiny}
    if arg and arg not in variants:
        raise ValueError(
            f"configs/own.py:{arg}: the variants are '', 'asked' and 'tiny'"
        )
    config = ConfigDict(dict(
        seed=0,
        mesh=dict(data=0, model=1),
        watch=dict(writers=("tensorboard",), project="seal"),
        model=dict(
            path="HuggingFaceTB/SmolLM2-135M-Instruct", random_weights=False,
            dtype="bfloat16", base_dtype="same", kernel="auto", attention="auto",
            chat="auto",
        ),
        # train, heldout: .json, .jsonl, .csv, .tsv, .parquet, .txt, .md, a folder of
        # them, or a hub name with its split. heldout may be empty. name: or
        # module:Class, a task of your own.
        task=dict(
            name="passages", shuffle_seed=0, forward_share=0.0,
            train="", train_split="train", train_start=0,
            heldout="", heldout_split="test", heldout_start=0,
            # Of a table; "" is none. For questions: question and answer, a row each,
            # or questions, a list of objects with these two.
            columns=dict(
                text="text", title="", id="", question="", answer="", questions="",
            ),
        ),
        scale=dict(
            rounds=1, passages=12, edits=3, seeds=1,
            heldout_passages=48, heldout_edits=1, heldout_seeds=1,
        ),
        # prompt: a name (configs/squad.py), or a file with {title} and {passage}.
        propose=dict(
            prompt="implications", temperature=1.0, top_p=0.95, top_k=0,
            min_tokens=1, max_tokens=128, prompt_multiple=512, batch=16, search=(),
        ),
        edit=dict(split="lines", quirks="fixed"),
        inner=dict(
            lora=dict(targets=ALL, rank=8, alpha=16.0),
            # As of configs/squad.py:small, which a pilot on other passages chose.
            learning_rate=5e-3, epochs=8, clip=1.0,
            loss=dict(mode="masked", pad_to=2048, pad_samples=0),
            tile=8, row_tokens=1024, step_tokens=1024, slots=16, active=16,
            chunk_tokens=0, pool=48,
            # What is learned of a self-edit, and by which loss: see configs/squad.py.
            rule="edits",
            teach=dict(
                rates=dict(
                    edits=0.0, quiz=0.0, distill=0.0, distill_edits=0.0,
                    on_policy=0.0, mix=0.0,
                ),
                passage_line=False, divergence="forward", beta=0.5, skip=0,
                waves=2, temperature=1.0, mix=0.5, tokens=0,
            ),
        ),
        answer=dict(
            prompt="concise", temperature=0.0, top_p=1.0, top_k=0,
            min_tokens=0, max_tokens=24, prompt_multiple=128, batch=32,
        ),
        # name: recall, exact, f1, or module:function of your own.
        grade=dict(name="recall", threshold=0.6, max_missing=0.02),
        label_free=dict(
            rubric="rules", samples=4, questions=10,
            quiz=dict(
                prompt="ask", temperature=1.0, top_p=0.95, top_k=0,
                min_tokens=0, max_tokens=256, prompt_multiple=512, batch=16,
            ),
        ),
        # reward: self_asked and rubric need no gold answers; grade, log_likelihood and
        # majority do; or module:function of your own.
        select=dict(
            reward="self_asked", compare=("rubric",), k_best=1, ties="first",
            threshold="none", halving=(), novelty_bonus=0.0, max_copied=1.0,
            max_overlap=1.0, prefilter=(), objective="mean",
        ),
        imitate=dict(
            start="previous", data="replace",
            lora=dict(targets=ALL, rank=16, alpha=32.0),
            learning_rate=3e-4, schedule="linear", epochs=2, clip=1.0,
            batch=4, micro_batch=1, length_multiple=512,
            # The choices of each key: configs/squad.py. With one seed nothing tells
            # what of a reward is luck: no shrink, no margin.
            rule="best",
            prefer=dict(
                rates=dict(positive=0.0, dpo=0.0, ipo=0.0, grpo=0.0, rloo=0.0),
                most=5, shrink=False, margin=0.0, beta=0.1, nll=0.1, per_token=False,
                clip=0.2, kl=0.0, std=True, tilt=0.0,
            ),
        ),
        stop=dict(rule="none", patience=2, z=2.0),
        # Left out where no held-out passage has a question.
        ladder=(
            "base", "in_context", "passage_only", "sentence_split", "self_edits",
        ),
    ))
    if arg:
        variants[arg](config)
    return config


def asked(config: ConfigDict) -> None:
    """Data with questions and answers, in columns of these names."""
    config.task.columns.update(question="question", answer="answer")
    config.select.update(reward="grade", compare=("self_asked",))


def tiny(config: ConfigDict) -> None:
    """Every stage with the embedded model, on two passages."""
    config.update(dict(
        model=dict(path="embedded:tiny", dtype="float32", chat="none"),
        scale=dict(passages=2, edits=2, heldout_passages=2),
        propose=dict(prompt="plain", max_tokens=32, prompt_multiple=64, batch=4),
        label_free=dict(quiz=dict(
            prompt="plain", max_tokens=48, prompt_multiple=64, batch=4,
        )),
        inner=dict(
            learning_rate=1e-2, epochs=2, tile=4, row_tokens=128, step_tokens=256,
            slots=4, active=4, pool=4,
        ),
        answer=dict(prompt="plain", max_tokens=4, prompt_multiple=32, batch=8),
        imitate=dict(epochs=1, micro_batch=2, length_multiple=128),
    ))
