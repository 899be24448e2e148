"""SEAL's outer loop: propose, adapt, evaluate, select, imitate.

`rest_em` is the round as the paper writes it; every other module is one of its steps,
or the ladder and the loop around it. Imports from all packages below.
"""
