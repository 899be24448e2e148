"""An operation that stands for one that does not run here, until it is compiled.

Which platform a program is for is known only when it is compiled, and some shapes are
traced that never run; so an implementation that was asked for by name and cannot do
its work is refused then, and not earlier.
"""

from typing import Any, NoReturn

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import mlir


def refuse(message: str, outs: Any) -> Any:
    """Results of these shapes that no program can be compiled with.

    Raises:
      NotImplementedError: with the message, when the program is compiled or run.
    """
    flat, tree = jax.tree.flatten(outs)
    avals = tuple(ShapedArray(out.shape, out.dtype) for out in flat)
    return tree.unflatten(_refused_p.bind(message=message, avals=avals))


_refused_p = Primitive("refused_kernel")
_refused_p.multiple_results = True


@_refused_p.def_impl
def _(*, message: str, avals: Any) -> NoReturn:
    raise NotImplementedError(message)


@_refused_p.def_abstract_eval
def _(*, message: str, avals: Any) -> Any:
    return avals


def _refuse_lowering(ctx: Any, *, message: str, avals: Any) -> NoReturn:
    raise NotImplementedError(message)


mlir.register_lowering(_refused_p, _refuse_lowering)
