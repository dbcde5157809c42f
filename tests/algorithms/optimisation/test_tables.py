"""Every method against the tables of reference values, round by round, on every engine."""

import numpy as np
import pytest
from method_tables import ORDINARY, STATES, TABLE
from quadratics import trajectory

import fedjax_lite as fl

pytestmark = pytest.mark.usefixtures("x64")
ENGINES = {"packed": fl.packed(2), "padded": fl.padded(), "sequential": fl.sequential()}


def check(name, engine):
    make, problem, expected = TABLE[name]
    states, found, _ = trajectory(make(problem, ENGINES[engine]), problem, len(expected))
    for actual, rows in [(found, expected), *((part(states), rows) for part, rows in STATES.get(name, []))]:
        np.testing.assert_allclose(actual, rows, atol=1.1e-9, rtol=0)  # the tables have ten digits


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in ORDINARY else pytest.mark.deep) for name in TABLE])
def test_a_method_is_its_table(name):
    check(name, "packed")


@pytest.mark.deep
@pytest.mark.parametrize("engine", ["padded", "sequential"])
@pytest.mark.parametrize("name", TABLE)
def test_a_method_is_its_table_on_every_engine(name, engine):
    check(name, engine)
