"""Tests that are parametrised over many names."""

import pytest


def grouped(argument, values):
    """Parametrise over names, or over values by name; one worker of a parallel run gets all tests of a name, and its compiled programs."""
    named = values if isinstance(values, dict) else {name: name for name in values}
    marked = [pytest.param(value, id=name, marks=pytest.mark.xdist_group(name)) for name, value in named.items()]
    return pytest.mark.parametrize(argument, marked)


def tiered(argument, values, quick):
    """Parametrise over names: those of `quick` for every run, the others `deep`."""
    return pytest.mark.parametrize(argument, [pytest.param(name, marks=() if name in quick else pytest.mark.deep) for name in values])
