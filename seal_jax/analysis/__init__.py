"""Statistics of rewards and texts: pure functions of numbers and strings.

Standard errors and bootstrap, variance components, halving, plateaus, agreement of
rewards, n-gram novelty, forgetting matrices. No jax; imports from `runtime` only.
"""
