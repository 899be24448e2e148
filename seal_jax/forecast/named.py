"""What a config names outside of itself, and that has to be there for a run."""

from seal_jax.continual.settings import Continual
from seal_jax.deploy.settings import Deploy
from seal_jax.lmsi.settings import Lmsi
from seal_jax.pooled.settings import Pooled
from seal_jax.rounds.experiment import Experiment
from seal_jax.rounds.few_shot_settings import FewShot
from seal_jax.rounds.settings import PassageRounds
from seal_jax.tasks import columns, hub, questions, self_edit, squad
from seal_jax.tasks.arc import text as arc_text

_FIXES = {"passages": columns.FIX, "squad": squad.FIX}


def check(exp: Experiment) -> None:
    """Refuses prompts that cannot be used, and data that is nowhere.

    Nothing is asked of the hub: whatever can be a name of it passes. Tasks of a grid
    are not looked for.

    Raises:
      ValueError: a prompt without its placeholders, or of no known name; questions
        from nowhere, or examples that are none.
      FileNotFoundError: no such file; the nearest name is told.
    """
    if isinstance(exp, Lmsi):
        if exp.task.name == questions.ROWS:
            sides = [questions.TRAIN, *[questions.HELDOUT] * bool(exp.scale.heldout)]
            for side in sides:
                hub.check_name(questions.source_of(exp.task, side), fix=questions.FIX)
        questions.exemplars(exp.task, exp.chains.shots)
        return
    propose, answer = exp.propose.prompt, exp.answer.prompt
    if isinstance(exp, FewShot):
        arc_text.load_propose(propose)
        arc_text.load_instruction(answer)
        return
    self_edit.load_template(propose, "propose")
    self_edit.load_template(answer, "answer")
    if (
        isinstance(exp, PassageRounds | Continual | Deploy | Pooled)
        and exp.task.name in _FIXES
    ):
        # Sessions of a log stand in place of passages to learn.
        logged = isinstance(exp, Deploy) and exp.stream.logs
        sides = (exp.task.heldout,) if logged else (exp.task.train, exp.task.heldout)
        for name in filter(None, sides):
            hub.check_name(name, fix=_FIXES[exp.task.name])
