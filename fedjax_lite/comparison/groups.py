"""Runs of the same settings and other seeds are one contender."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_lite.comparison.entries import Entry

__all__ = ["Contender", "contenders_of", "differing"]


class Contender(NamedTuple):
    """Runs of the same settings, each with a seed of its own."""

    name: str
    settings: dict[str, Any]
    runs: tuple[Entry, ...]

    @property
    def rounds(self) -> int:
        """The rounds of its shortest run."""
        return min(run.rounds for run in self.runs)

    def metrics(self) -> list[str]:
        """Return the metrics that all of its runs have."""
        return [name for name in self.runs[0].curves if all(name in run.curves for run in self.runs)]

    def by_seed(self, metric: str, round: int) -> dict[Any, float]:
        """Return the metric of each seed at its last evaluation up to a round; nothing of a run that has none."""
        found = {}
        for run in self.runs:
            curve = run.curves.get(metric)
            there = np.flatnonzero(curve.rounds <= round) if curve else np.zeros(0, int)
            if curve and there.size:
                found[run.seed] = float(curve.values[there[-1]])
        return found


def contenders_of(entries: Sequence[Entry]) -> list[Contender]:
    """Put runs of equal settings and different seeds together, in the order in which they come; runs without settings stay alone.

    >>> run = Entry("a", {"rate": 0.1}, 0, "finished", 1, 1, {}, "")
    >>> [len(one.runs) for one in contenders_of([run, run._replace(name="b", seed=1), run._replace(name="c")])]
    [2, 1]
    """
    groups: list[list[Entry]] = []
    keys: list[str] = []
    for entry in entries:
        key = json.dumps(entry.settings, sort_keys=True, default=str)
        places = [i for i, known in enumerate(keys) if entry.settings and known == key]
        free = next((i for i in places if entry.seed not in [run.seed for run in groups[i]]), None)
        if free is None:
            groups.append([entry])
            keys.append(key)
        else:
            groups[free].append(entry)
    return [Contender(_name(group), group[0].settings, tuple(group)) for group in groups]


def differing(contenders: Sequence[Contender]) -> dict[str, list[Any]]:
    """Return the settings in which contenders differ, each with a value a contender; None where a contender has no such setting.

    >>> differing([Contender("a", {"rate": 0.1, "size": 2}, ()), Contender("b", {"rate": 0.2, "size": 2, "more": 1}, ())])
    {'rate': [0.1, 0.2], 'more': [None, 1]}
    """
    names = dict.fromkeys(name for one in contenders for name in one.settings)
    values = {name: [one.settings.get(name) for one in contenders] for name in names}
    return {name: each for name, each in values.items() if any(value != each[0] for value in each[1:])}


def _name(group: Sequence[Entry]) -> str:
    """Name a contender: its first run, and how many more there are unless they are seeds of one study's cell."""
    names = list(dict.fromkeys(run.name for run in group))
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
