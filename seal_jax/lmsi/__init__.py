"""Self-improvement without labels: a policy learns chains that most of it agrees on.

Uses the fine-tuning of `rounds`; a policy's edits are its chains of thought.
"""
