"""What `import seal_jax as seal` offers: models, many adapters trained at once, files.

A thin front on the engine: `training` lays texts out as jobs, `rounds.pools` trains
them, `generation.policies` writes under them, `models.peft` reads and writes them.
"""
