"""The small commands of `seal-jax`: arguments in, a table out."""
