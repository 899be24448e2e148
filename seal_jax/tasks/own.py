"""A task of the user's own: a class, named as `module:Class`, whose items are passages.

It has `items(task, side)`, static: the passages of a side, "train" or "heldout", for a
`TaskConfig`. If it derives from `knowledge.Knowledge` it also is the task, and may say
in its own way how passages are written about, trained, asked about and scored; else
that is as for all passages.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from seal_jax.runtime import config_rules, plugins
from seal_jax.tasks.base import Reading
from seal_jax.tasks.passage import Passage, Question

_ITEMS = ("task", "side")


def check(key: str, text: str) -> type:
    """The class that `module:Class` names.

    Raises:
      ValueError: see `plugins.find`; or it is none, or has no such `items`.
    """
    found = plugins.find(key, text)
    if not isinstance(found, type):
        raise ValueError(
            f"{key}={text!r}: must be a class, and is {config_rules.shown(found)}; "
            "name one"
        )
    items = getattr(found, "items", None)
    if not callable(items):
        raise ValueError(
            f"{key}={text!r}: must have a static method items({', '.join(_ITEMS)}), "
            "which returns passages; add it, see docs/own_data.md"
        )
    plugins.check_takes(f"{key}={text!r}: items", items, _ITEMS)
    return found


def _check_texts(where: str, item: Passage) -> None:
    """Refuses a passage with a field that is no text, or a blank one.

    Raises:
      ValueError: see above; `where` and the field are named.
    """
    fields: list[tuple[str, object]]
    fields = [("title", item.title), ("text", item.text), ("id", item.id)]
    if not isinstance(item.questions, Sequence):
        raise ValueError(
            f"{where}: questions={config_rules.shown(item.questions)} must be a tuple "
            "of Question; make the passage by Passage.of(title, text, questions)"
        )
    for j, asked in enumerate(item.questions):
        if not isinstance(asked, Question):
            raise ValueError(
                f"{where}: questions[{j}] is {config_rules.shown(asked)}, and must be "
                "a Question; make the passage by Passage.of(title, text, questions)"
            )
        fields += [
            (f"questions[{j}].question", asked.question),
            (f"questions[{j}].answer", asked.answer),
        ]
    if len(item.rephrased) not in (0, len(item.questions)):
        raise ValueError(
            f"{where}: rephrased has {len(item.rephrased)} questions, and questions "
            f"{len(item.questions)}; give one for each, in their order, or none"
        )
    for name, value in fields:
        if not isinstance(value, str) or not value.strip():
            raise ValueError(
                f"{where}: {name}={config_rules.shown(value)} must be text that is not "
                "blank; correct it, or leave it out"
            )


def items(task: Any, side: str) -> list[Passage]:
    """The passages of a side, of the class that the `TaskConfig` names.

    Raises:
      ValueError: it raises, or gives something else than passages whose fields are
        texts, each of an id of its own.
    """
    key, text = "task.name", task.name
    given = plugins.call(key, text, check(key, text).items, task, side)  # pyright: ignore[reportAttributeAccessIssue]
    where = f"{key}={text!r}: items(task, {side!r})"
    if not isinstance(given, Sequence):
        raise ValueError(
            f"{where} must return a list of passages, not {config_rules.shown(given)}; "
            "change it"
        )
    seen: set[str] = set()
    for i, item in enumerate(given):
        if not isinstance(item, Passage):
            raise ValueError(
                f"{where}: number {i} is {config_rules.shown(item)}, and must be a "
                "Passage; make it by Passage.of(title, text, questions)"
            )
        _check_texts(f"{where}: number {i}", item)
        if item.id in seen:
            raise ValueError(
                f"{where}: number {i} has the id {item.id!r} of one before it; give "
                "each its own, or leave one out"
            )
        seen.add(item.id)
    return list(given)


def guarded[T](text: str, found: type[T], base: type) -> type[T]:
    """The class `found`, with what it says in its own way called and looked at.

    Methods that it takes from `base`, of which it derives, stay as they are. What its
    own ones raise, or give that they must not give, is a `plugins.OwnCodeError`.

    Args:
      text: its name, `module:Class`.
      found: the user's class.
      base: the package's.
    """

    def method(name: str, look: Callable[..., Any]) -> Callable[..., Any]:
        def called(self: T, *args: Any, **kw: Any) -> Any:
            def read_out() -> Any:
                value = getattr(super(made, self), name)(*args, **kw)
                # A generator's errors come only as it is read.
                lazy = isinstance(value, Iterable) and not isinstance(
                    value, str | tuple
                )
                return list(value) if lazy else value

            value = plugins.call("task.name", text, read_out)
            return look(text, name, self, (*args, *kw.values()), value)

        return called

    looks = {
        "propose_prompt": _text,
        "read": _reading,
        "lines": _texts,
        "prompts": _prompts,
        "score": _scores,
    }
    named = {
        name: method(name, look)
        for name, look in looks.items()
        if getattr(found, name) is not getattr(base, name)
    }
    about = {"__module__": found.__module__, "__doc__": found.__doc__}
    made: Any = type(found.__name__, (found,), {**about, **named})
    return made


def _wrong(text: str, name: str, must: str, value: object) -> plugins.OwnCodeError:
    return plugins.OwnCodeError(
        f"task.name={text!r}: {name} must return {must}, not "
        f"{config_rules.shown(value)}; change it"
    )


def _text(text: str, name: str, task: Any, args: Sequence[Any], value: Any) -> str:
    del task, args
    if not isinstance(value, str):
        raise _wrong(text, name, "a text", value)
    return value


def _reading(
    text: str, name: str, task: Any, args: Sequence[Any], value: Any
) -> Reading:
    del task, args
    if not isinstance(value, Reading):
        raise _wrong(text, name, "a Reading of seal_jax.tasks.base", value)
    return value


def _texts(
    text: str, name: str, task: Any, args: Sequence[Any], value: Any
) -> Sequence[str]:
    del task, args
    if not isinstance(value, list | tuple):
        raise _wrong(text, name, "a list of texts", value)
    for each in value:
        if not isinstance(each, str):
            raise _wrong(text, name, "a list of texts", each)
    return value


def _prompts(
    text: str, name: str, task: Any, args: Sequence[Any], value: Any
) -> list[str]:
    found, count = list(_texts(text, name, task, args, value)), len(task.gold(*args))
    if len(found) != count:
        raise plugins.OwnCodeError(
            f"task.name={text!r}: {name} gave {len(found)} texts about {count} "
            "questions; give one for each"
        )
    return found


def _scores(
    text: str, name: str, task: Any, args: Sequence[Any], value: Any
) -> list[float | None]:
    if not isinstance(value, list | tuple):
        raise _wrong(text, name, "a list of numbers", value)
    count = sum(task.scores_of(item) for item, _ in args[0])
    if len(value) != count:
        raise plugins.OwnCodeError(
            f"task.name={text!r}: {name} gave {len(value)} scores of {count} answers; "
            "give one for each, or None where there is none, in one list"
        )
    return [
        plugins.number("task.name", text, each, 0.0, 1.0, of=name) for each in value
    ]
