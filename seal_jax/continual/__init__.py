"""Self-edits learned one after the other, and how not to forget.

Sequences side by side on frozen stacks, the controls against forgetting, and the
matrices of what is left. Uses the steps of `rounds`.
"""
