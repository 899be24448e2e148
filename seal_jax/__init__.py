"""SEAL (self-adapting language models) in JAX: many adapters trained at once.

Packages from the bottom to the top: runtime, analysis, models, training, generation,
tasks, rewards, rounds, continual, pooled, report, embedded; then `experiment`, a run
from the first check to the last file, and `train`, the command. Each imports only from
those before it. The round is `seal_jax/rounds/rest_em.py`. Importing this brings no
jax.
"""
