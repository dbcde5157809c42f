"""Run a table of checks on a probe or a trial; an error is a verdict too."""

import traceback
from collections.abc import Callable, Collection, Mapping
from typing import Any

from fedjax_lite.checks.report import Row
from fedjax_lite.refuse import one_line

Verdict = tuple[str, str]  # holds, evidence
Check = Callable[[Any], Verdict]  # a probe or a trial -> its verdict


def answers(
    ready: Callable[[], Any], required: Mapping[str, Check], reported: Mapping[str, Check], only: Collection[str] | None
) -> tuple[Row, ...]:
    """Return a row for each property, checked on the result of `ready()`; if `ready` fails, each row holds the error.

    Raises:
        ValueError: for an unknown property in `only`.
    """
    checks = {**required, **reported}
    if unknown := set(only or ()) - checks.keys():
        raise ValueError(f"checks: only must name properties, got {', '.join(map(repr, sorted(unknown)))}: there are {', '.join(checks)}")
    asked = {name: check for name, check in checks.items() if only is None or name in only}
    try:
        subject = ready()
    except Exception as error:
        verdict = failed(error)
        return tuple(Row(name, verdict[0], name in required, verdict[1]) for name in asked)
    rows = []
    for name, check in asked.items():
        try:
            holds, evidence = check(subject)
        except Exception as error:
            holds, evidence = failed(error)
        rows.append(Row(name, holds, name in required, evidence))
    return tuple(rows)


def failed(error: Exception) -> Verdict:
    """Return "refused" for a ValueError that the rule itself raises, "no" for other errors, and the error's first line."""
    # jax raises ValueError too, but takes its own frames off the traceback: the last line left is then no `raise`.
    last = traceback.extract_tb(error.__traceback__)[-1]
    refused = isinstance(error, ValueError) and (not last.line or last.line.startswith("raise"))
    return "refused" if refused else "no", one_line(error)
