"""The two small models that ship with the package, and how they are made.

`pretrain` trains them on `world_corpus` and `grids_corpus`; `assets` holds them.
Nothing else imports from here.
"""
