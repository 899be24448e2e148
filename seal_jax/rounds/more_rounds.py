"""More rounds for a run: its workdir, made ready for a config with a higher count.

A round asks nothing of how many there are to be, so what rounds left stays. What rests
on the last of them goes: rows of the ladder that the last policy walks, the control's
row, and the ladder's numbers by step, whose steps are the rows' places.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seal_jax.rounds import ladder_rows
from seal_jax.runtime import distributed, journal, metrics, records

# The key that may be higher than in the workdir's config.
KEY = "scale.rounds"


def check_begun(workdir: Path, more: int) -> None:
    """Refuses more rounds for a run that there is not.

    Raises:
      ValueError: see above.
    """
    begun = distributed.share(lambda: (workdir / records.CONFIG_NAME).exists())
    if not begun:
        raise ValueError(
            f"--more_rounds={more}: {workdir} holds no run that could have more "
            "rounds; name one, or set --config.scale.rounds for a new run"
        )


def extend(
    workdir: Path, config: dict[str, Any], *, summary: str, last_arms: Sequence[str]
) -> None:
    """Makes `workdir` one that a run of `config`, of more rounds, can continue.

    A kill in between leaves a run that either of the two configs continues.

    Args:
      workdir: of a run of the same config with fewer rounds; nobody has its files open.
      config: as written.
      summary: the name of the file that says that a run is finished.
      last_arms: rows of the ladder that the last policy walks.

    Raises:
      ValueError: a file that was altered.
    """
    stale = tuple(f"ladder/{row}/" for row in (ladder_rows.CONTROL, *last_arms))
    (workdir / summary).unlink(missing_ok=True)
    if (workdir / "journal.jsonl").exists():
        journal.forget(workdir / "journal.jsonl", lambda key: key.startswith(stale))
    metrics.forget(workdir, lambda name: name.startswith("ladder/"))
    # The last: from here on it is a run of the new config.
    records.write_json(workdir / records.CONFIG_NAME, config)
