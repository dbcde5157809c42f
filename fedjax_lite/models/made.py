"""How a model was made: its factory's name and arguments, plain values that JSON holds, so that the model can be made again."""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, NamedTuple

from fedjax_lite.models.model import Model
from fedjax_lite.refuse import plain

__all__ = ["Made", "made_of", "remembering"]

MODEL = "model"  # the only key of the dict that stands for a model among arguments


class Made(NamedTuple):
    """How a model was made."""

    description: dict[str, Any]  # "name", "arguments" and what else its factory's caller knows
    of: tuple[Callable, Callable]  # init and apply of the model, so that a model changed afterwards is not taken for the one made


def remembering(factory: Callable[..., Model], name: str, **beside: Any) -> Callable[..., Model]:
    """Return the factory whose models tell how they were made; a model that already tells, or has arguments beyond JSON, stays as it is.

    >>> linear = remembering(lambda width, **more: Model(lambda key, example: width, lambda params, batch, key: batch), "linear")
    >>> made_of(linear(3, bias=False))
    {'name': 'linear', 'arguments': {'width': 3, 'bias': False}}
    >>> made_of(linear(max)) is None
    True
    """
    signature = inspect.signature(factory)

    @wraps(factory)
    def make(*args: Any, **keywords: Any) -> Model:
        model = factory(*args, **keywords)
        if isinstance(model, Model) and made_of(model) is None:
            try:
                description = {"name": name, "arguments": _arguments(signature.bind(*args, **keywords)), **beside}
                setattr(model.apply, "made", Made(description, (model.init, model.apply)))
            except (TypeError, AttributeError):  # of a value that JSON has no word for, an apply that takes no note
                pass
        return model

    return make


def made_of(model: Model) -> dict[str, Any] | None:
    """Return how a model was made: a factory's name, its arguments, and of the user's code the place; None where nobody knows."""
    made = getattr(model.apply, "made", None)
    return made.description if isinstance(made, Made) and made.of == (model.init, model.apply) else None


def _arguments(bound: inspect.BoundArguments) -> dict[str, Any]:
    """Return all arguments of a call by name, defaults too, as JSON has them."""
    bound.apply_defaults()
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            if value:
                raise TypeError(f"the values of {name} have no names")
            continue
        found |= _plain(value) if kind is inspect.Parameter.VAR_KEYWORD else {name: _plain(value)}
    return found


def _plain(value: Any) -> Any:
    """Return an argument as JSON has it.

    Raises:
        TypeError: for a value that JSON does not have, such as a function, a tracer or infinity.
    """
    value = plain(value)
    if isinstance(value, Model):
        if (description := made_of(value)) is None:
            raise TypeError("nobody knows how the model inside was made")
        return {MODEL: description}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, str | bool | int) or isinstance(value, float) and math.isfinite(value):
        return value
    raise TypeError(f"JSON has no {type(value).__name__}")
