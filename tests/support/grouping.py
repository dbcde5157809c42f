"""Tests that are parametrised over many names."""

import pytest


def grouped(argument, values, deep=(), quick=()):
    """Parametrise over names, or over values by name; one worker of a parallel run gets all tests of a name, and its compiled programs.
    The names in `deep` are for the deeper tests, those in `quick` also for the quick ones."""
    named = values if isinstance(values, dict) else {name: name for name in values}

    def marks(name):
        yield pytest.mark.xdist_group(name)
        if name in deep:
            yield pytest.mark.deep
        if name in quick:
            yield pytest.mark.quick

    return pytest.mark.parametrize(argument, [pytest.param(value, id=name, marks=list(marks(name))) for name, value in named.items()])


def tiered(argument, values, ordinary):
    """Parametrise over names: those in `ordinary` for every run, the others for the deeper tests."""
    return grouped(argument, list(values), deep=[name for name in values if name not in ordinary])
