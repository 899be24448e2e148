"""All commands: the module of each, and what it does; nothing is imported."""

COMMANDS = {
    "train": ("seal_jax.train", "run an experiment from a config file, or continue it"),
    "adapt": (
        "seal_jax.commands.adapt",
        "an adapter for each of your texts, as PEFT directories",
    ),
    "generate": (
        "seal_jax.commands.generate",
        "what a model writes, with adapters or without; or talk to it",
    ),
    "evaluate": (
        "seal_jax.commands.evaluate",
        "answers to a data set's questions, graded; nothing is trained",
    ),
    "export": (
        "seal_jax.commands.export",
        "the policy of a run, or the adapter of any of its edits, for others",
    ),
    "report": (
        "seal_jax.report",
        "results of runs as tables and pages; what differs, over seeds",
    ),
    "select": (
        "seal_jax.report.commands.select",
        "a fine-tuning set from a released ranking of self-edits",
    ),
    "novelty": (
        "seal_jax.report.commands.novelty",
        "how new self-edits are, and how alike",
    ),
    "reliability": (
        "seal_jax.report.commands.reliability",
        "how far a reward tells edits apart, and what more seeds would bring",
    ),
    "agreement": (
        "seal_jax.report.commands.agreement",
        "how well other rewards choose, beside the true one",
    ),
    "continual": (
        "seal_jax.report.commands.continual",
        "matrices of continual runs, side by side",
    ),
    "pretrain": ("seal_jax.embedded.pretrain", "make the models that ship with it"),
    "completion": (
        "seal_jax.commands.completion",
        "a script by which bash, zsh or fish completes commands and flags",
    ),
}
