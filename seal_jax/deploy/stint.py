"""What every day of one arm needs, and the keys of its units in the journal."""

import dataclasses
from collections.abc import Sequence

from seal_jax.continual.stack import Setting
from seal_jax.deploy.entries import DayEntry
from seal_jax.deploy.sessions import Session, Streams
from seal_jax.deploy.settings import Arm, Deploy
from seal_jax.generation import policies
from seal_jax.rounds.trials import Run
from seal_jax.tasks.passage import Passage

FOLDER = "deploy"

type DeployRun = Run[Deploy, Passage]


@dataclasses.dataclass(frozen=True)
class Stint:
    """One arm over all streams.

    `setting`: the arm as `continual` sees it, whose sequences are the sessions'
    contexts with the users' questions, and whose steps are nights. `unseen`: token ids
    of texts that the base wrote and no night trains on, to measure drift on; those of
    "kl" are others, the setting's `generic`.
    """

    exp: Deploy
    setting: Setting
    streams: Streams
    unseen: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(
        cls,
        run: DeployRun,
        base: policies.Policy,
        arm: str,
        streams: Streams,
        probes: Sequence[Passage],
        unseen: Sequence[Sequence[int]],
        generic: Sequence[Sequence[int]] = (),
    ) -> "Stint":
        """An arm of a run."""
        setting = Setting(
            run,
            base,
            arm,
            [
                [session.context for session in streams.all(s)]
                for s in range(len(streams.days))
            ],
            probes,
            tuple(map(tuple, generic)),
            streams.lengths,
        )
        return cls(run.exp, setting, streams, tuple(map(tuple, unseen)))

    @property
    def arm(self) -> Arm:
        return Arm.of(self.setting.arm)

    @property
    def viewed(self) -> Setting:
        """The arm asked with contexts in view."""
        run = self.setting.run
        shown = dataclasses.replace(run, task=self.setting.task.in_view())
        return dataclasses.replace(self.setting, run=shown)

    def sessions(self, t: int) -> list[Sequence[Session]]:
        """Each stream's sessions of day t = 1, 2, ..."""
        return [days[t - 1] for days in self.streams.days]

    def said(self, t: int, entry: DayEntry) -> list[Sequence[Sequence[str]]]:
        """The answers of day t, by stream and session: logged ones, or the model's."""
        if not self.streams.logged:
            return [*entry["answers"]]
        return [[session.answers for session in own] for own in self.sessions(t)]

    def key(self, t: int, unit: str) -> str:
        """A unit of day t in the journal."""
        return f"{FOLDER}/{self.setting.arm}/{t}/{unit}"
