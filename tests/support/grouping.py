"""Tests that are parametrised over many names."""

import pytest

FORMS = "forms"  # the group of tests that choose forms, where jax forgets all programs: apart from others, which would lose theirs


def grouped(argument, values, deep=(), slow=(), quick=(), group=None):
    """Parametrise over names, or over values by name: those in `deep` for the deeper tests, those in `slow` for the slow ones, those in
    `quick` also for the quick ones. One worker of a parallel run gets all tests of a name, or of the group told, and their programs."""
    named = values if isinstance(values, dict) else {name: name for name in values}

    def marks(name):
        yield pytest.mark.xdist_group(group or name)
        for mark, names in ((pytest.mark.deep, deep), (pytest.mark.slow, slow), (pytest.mark.quick, quick)):
            if name in names:
                yield mark

    return pytest.mark.parametrize(argument, [pytest.param(value, id=name, marks=list(marks(name))) for name, value in named.items()])


def tiered(argument, values, ordinary, deep=None, group=None):
    """Parametrise over names: those in `ordinary` for every run, the others for the deeper tests, or those in `deep` and the rest for the
    slow ones."""
    others = [name for name in values if name not in ordinary]
    slow = [name for name in others if deep is not None and name not in deep]
    return grouped(argument, list(values), deep=[name for name in others if name not in slow], slow=slow, group=group)
