"""Decide, here alone, between a CPU's and an accelerator's form of a computation.

Forms compute the same result in different ways. A CPU's form takes one row after another, so that arrays stay in its cache; an
accelerator's form takes a whole stack at once. By default the program's platform decides. Questions about hardware, for instance the
number of devices and their memory, are not asked here.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax

from fedjax_lite.base import Tree

VARIABLE = "FEDJAX_LITE_FORMS"
NAMES = ("auto", "cpu", "accelerator")
_asked: list[str] = []  # the names of open `use` contexts, the innermost last


def requested() -> str:
    """Return the forms asked for by the innermost `use`, else by the environment variable FEDJAX_LITE_FORMS, else "auto".

    Raises:
        ValueError: if the variable has another value.

    >>> requested() in NAMES
    True
    """
    return _asked[-1] if _asked else _known(os.environ.get(VARIABLE) or "auto", f"the environment variable {VARIABLE}")


@contextmanager
def use(name: str) -> Iterator[None]:
    """Take a CPU's or an accelerator's forms on every platform, for instance to test an accelerator's forms on a CPU.

    The form is chosen while a program is traced, so where the choice changes, on the way in and on the way out, jax forgets every program
    of this process. Use it outside traced code, in one thread. A program from `lower().compile()` stays as it is.

    Args:
        name: "cpu", "accelerator", or "auto": by the platform, also where the environment asks otherwise.

    Raises:
        ValueError: for another name.

    >>> with use("accelerator"):
    ...     requested(), cpu()
    ('accelerator', False)
    """
    changes = _known(name, "forms.use") != requested()
    _asked.append(name)
    try:
        if changes:
            jax.clear_caches()
        yield
    finally:
        _asked.pop()
        if changes:
            jax.clear_caches()


def cpu(platform: bool | None = None) -> bool:
    """Return whether a CPU's form is taken, for a choice made in Python while a program is traced or lowered.

    Args:
        platform: whether the program is for a CPU, where that is known; None: jax's default backend decides.

    >>> with use("cpu"):
    ...     cpu(platform=False)
    True
    """
    name = requested()
    if name != "auto":
        return name == "cpu"
    return jax.default_backend() == "cpu" if platform is None else platform


def by_platform(*operands: Tree, cpu: Callable[..., Tree], accelerator: Callable[..., Tree]) -> Tree:
    """Call `cpu(*operands)` or `accelerator(*operands)`, chosen where the program is lowered, so that one exported program serves both.

    >>> float(jax.jit(lambda x: by_platform(x, cpu=lambda x: x + 1, accelerator=lambda x: 1 + x))(1.0))
    2.0
    """
    name = requested()
    if name == "auto":
        return jax.lax.platform_dependent(*operands, cpu=cpu, default=accelerator)
    return cpu(*operands) if name == "cpu" else accelerator(*operands)


def _known(name: str, where: str) -> str:
    """Return `name` if it is in `NAMES`; an error names `where` it comes from."""
    if name not in NAMES:
        raise ValueError(f"{where}: must be one of {', '.join(NAMES)}, got {name!r}")
    return name
