"""Hold compiled programs as long as the algorithm that they were compiled for, and no longer.

`jax.jit` holds the static arguments of its programs for as long as the jitted function lives. A sweep that builds an algorithm a step
would keep the programs of all. A program takes hundreds of the memory mappings that a process may have (65,530 on Linux).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

__all__ = ["Compiled"]


class Compiled:
    """`jax.jit(function, **options)` with separate programs for each value of its first `parts` arguments: functions, or tuples of them.

    The programs are an attribute of the first part (of an algorithm: of its `round`) and are freed with that part. Programs and part hold
    each other, a circle that Python's collector frees; a table here, or a static argument of jax, would hold the part for ever.

    >>> scaled = Compiled(lambda factor, x: factor(x), parts=1)
    >>> double = lambda x: 2 * x
    >>> scaled(double, 3.0).item(), scaled.programs(double)
    (6.0, 1)
    """

    def __init__(self, function: Callable[..., Any], *, parts: int, **options: Any) -> None:
        self._function, self._parts, self._options = function, parts, options

    def of(self, *parts: Any) -> Any:
        """Return the jitted function of the arguments that follow `parts`."""
        owner = getattr(parts[0], "round", parts[0])
        programs = vars(owner).setdefault("_programs", {}) if hasattr(owner, "__dict__") else {}
        if (self, parts) not in programs:
            programs[self, parts] = jax.jit(partial(self._function, *parts), **self._options)
        return programs[self, parts]

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self.of(*args[: self._parts])(*args[self._parts :], **keywords)

    def programs(self, *parts: Any) -> int:
        """Count the programs compiled for `parts`."""
        return self.of(*parts)._cache_size()
