"""Self-edits of many passages in one training: an adapter, or all weights.

Uses the steps of `rounds`; the counterpart of continued pretraining in the paper.
"""
