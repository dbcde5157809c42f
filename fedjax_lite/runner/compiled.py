"""Compiled programs that go when the algorithm they were made of goes.

`jax.jit` holds the static arguments of its programs for as long as the jitted function lives. A sweep that builds an algorithm a step
would keep every one of them, and a program takes hundreds of the memory mappings that a process may have (65,530 on Linux).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

__all__ = ["Compiled"]


class Compiled:
    """`jax.jit(function, **options)`, but for its first arguments, `parts`: functions, or tuples of them, that each have programs apart.

    The programs are an attribute of the first part (of an algorithm: of its `round`), and go with it: they hold what they belong to,
    a circle that Python's collector finds, where a table here, or a static argument of jax's, would hold it for ever.

    >>> scaled = Compiled(lambda factor, x: factor(x), parts=1)
    >>> double = lambda x: 2 * x
    >>> scaled(double, 3.0).item(), scaled.programs(double)
    (6.0, 1)
    """

    def __init__(self, function: Callable[..., Any], *, parts: int, **options: Any) -> None:
        self._function, self._parts, self._options = function, parts, options

    def of(self, *parts: Any) -> Any:
        """The jitted function of the other arguments."""
        owner = getattr(parts[0], "round", parts[0])
        programs = vars(owner).setdefault("_programs", {}) if hasattr(owner, "__dict__") else {}
        if (self, parts) not in programs:
            programs[self, parts] = jax.jit(partial(self._function, *parts), **self._options)
        return programs[self, parts]

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self.of(*args[: self._parts])(*args[self._parts :], **keywords)

    def programs(self, *parts: Any) -> int:
        """How many programs there are for these parts."""
        return self.of(*parts)._cache_size()
