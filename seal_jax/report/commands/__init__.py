"""The small commands of `python -m seal_jax`: arguments in, a table out."""
