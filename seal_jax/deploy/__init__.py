"""Learning on the job: sessions by day, and each night one training on them.

Above `continual`, whose stacks, controls and training it uses.
"""
