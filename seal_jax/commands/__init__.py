"""Commands for the day: `adapt`, `generate`, `export`, `evaluate`; each a module.

They are the API (`api`) from a shell, and read what runs left. Those that only read
results are in `report.commands`.
"""
