"""Asking: every property of a table, of whatever it is that the checks are given; an error is an answer too."""

import traceback
from collections.abc import Callable, Collection, Mapping
from typing import Any

from fedjax_lite.checks.report import Row

Verdict = tuple[str, str]  # holds, evidence
Check = Callable[[Any], Verdict]


def answers(
    ready: Callable[[], Any], required: Mapping[str, Check], reported: Mapping[str, Check], only: Collection[str] | None
) -> tuple[Row, ...]:
    """A row a property, of what `ready` makes; if that fails, every row says why.

    Raises:
        ValueError: for a property in `only` that there is not.
    """
    checks = {**required, **reported}
    if unknown := set(only or ()) - checks.keys():
        raise ValueError(f"checks: only must name properties, got {', '.join(map(repr, sorted(unknown)))}: there are {', '.join(checks)}")
    asked = {name: check for name, check in checks.items() if only is None or name in only}
    try:
        given = ready()
    except Exception as error:
        verdict = failed(error)
        return tuple(Row(name, verdict[0], name in required, verdict[1]) for name in asked)
    rows = []
    for name, check in asked.items():
        try:
            holds, evidence = check(given)
        except Exception as error:
            holds, evidence = failed(error)
        rows.append(Row(name, holds, name in required, evidence))
    return tuple(rows)


def failed(error: Exception) -> Verdict:
    """ "refused" for a ValueError that the rule raises of its own, "no" for any other error."""
    first = (str(error).splitlines() or [""])[0]
    text = f"{type(error).__name__}: {first}"
    # jax raises ValueError too; it takes its own frames off the traceback, so the last one left is then no `raise`.
    last = traceback.extract_tb(error.__traceback__)[-1]
    refused = isinstance(error, ValueError) and (not last.line or last.line.startswith("raise"))
    return "refused" if refused else "no", text if len(text) <= 200 else text[:197] + "..."
