"""What a run is going to do and cost, from its config alone: `train --dry_run`.

Nothing is downloaded, no weights are loaded, no file is written.
"""
