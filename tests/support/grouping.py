"""Tests that are parametrised over many names."""

import pytest


def grouped(argument, values, deep=()):
    """Parametrise over names, or over values by name; one worker of a parallel run gets all tests of a name, and its compiled programs.
    The names in `deep` are for the deeper tests."""
    named = values if isinstance(values, dict) else {name: name for name in values}
    marks = {name: [pytest.mark.xdist_group(name), *([pytest.mark.deep] if name in deep else [])] for name in named}
    return pytest.mark.parametrize(argument, [pytest.param(value, id=name, marks=marks[name]) for name, value in named.items()])
