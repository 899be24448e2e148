"""Grid puzzles (ARC): files, augmentations, training lines, prompts, votes.

`few_shot` in the package above makes a task of them. No jax.
"""
