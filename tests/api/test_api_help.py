"""`help()` suffices: every public name says what it takes, gives and raises."""

import inspect

import pytest

import seal_jax as seal
from seal_jax.api import settings

FUNCTIONS = {
    "load": (seal.load, None),
    "load_peft": (seal.load_peft, None),
    "stack": (seal.stack, None),
    "train_adapters": (seal.train_adapters, settings.TrainOptions),
    "iter_adapters": (seal.iter_adapters, None),
    "generate": (seal.Model.generate, settings.WriteOptions),
    "log_likelihood": (seal.Model.log_likelihood, None),
    "merge": (seal.Model.merge, None),
    "save": (seal.Model.save, None),
    "save_peft": (seal.Adapters.save_peft, None),
}
CLASSES = (seal.Model, seal.Adapters, seal.Adapter)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_names_its_arguments_types_and_errors(name):
    function, options = FUNCTIONS[name]
    told = inspect.getdoc(function) or ""
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    names = [
        n
        for n, p in signature.parameters.items()
        if n != "self" and p.kind is not p.VAR_KEYWORD
    ]
    for n in names:
        assert signature.parameters[n].annotation is not inspect.Parameter.empty, n
        # An argument alone is in the first sentence.
        assert len(names) == 1 or n in told, n
    for n in options.__annotations__ if options else ():
        assert n in told, n
    assert "Raises:" in told


def test_every_public_name_is_told():
    for name in seal.__all__:
        assert inspect.getdoc(getattr(seal, name)), name
    for cls in CLASSES:
        for name, member in vars(cls).items():
            if not name.startswith("_") and (
                callable(member) or isinstance(member, property)
            ):
                assert member.__doc__, f"{cls.__name__}.{name}"
