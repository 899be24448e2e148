"""The machine and the disk: everything that knows no language model.

Files and workdirs, the journal that survives a kill, checkpoints, metrics, progress and
number formatting; config files to dataclasses; processes, meshes, and what XLA has to
be told. Imports nothing of the other packages.
"""
