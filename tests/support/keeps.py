"""The contract's tests, for a group of names: `globals().update(aggregators(SUMS))` in a test file."""

import jax
import numpy as np
import pytest
from contract import (
    AGGREGATORS,
    ALGORITHMS,
    KINDS,
    MORE_THAN_ONE,
    NOISE_OF_CLIENTS,
    NOISY,
    POPULATION,
    SIX,
    assert_close,
    contract_data,
    distributed,
    federate,
)
from grouping import grouped
from problems import dealt, softmax_params

import fedjax_lite as fl
from fedjax_lite import checks
from fedjax_lite.checks.promised import PROMISED
from fedjax_lite.checks.required import REQUIRED
from fedjax_lite.engine.placement import everywhere, mesh_of

MESSAGE = {"w": np.zeros((3, 2)), "b": np.zeros(())}
ALONE = "one client is its own aggregate"
# Of one client they make something else: a sign, zero (there is nobody beside the server's own), a share, whole numbers, noise.
OTHERS_ALONE = "sign_majority", "fltrust", "dp_mean", "secure_mean", "secure_mean ring", *NOISY, *NOISE_OF_CLIENTS

# In the ordinary tests these are asked of three, in the deeper ones of all.
DEEPER_OF_AGGREGATORS = "half precision loses nothing", "vmap equals the loop", "nothing touches the host"
DEEPER_OF_ALGORITHMS = "several devices equal one", "vmap equals the loop", "pieces equal the whole", "nothing touches the host"
THREE_AGGREGATORS, THREE_ALGORITHMS = ("weighted_mean", "krum", "dp_mean adaptive"), ("work sgd", "random at every place", "distilled")
ON_DEVICES = "weighted_mean", "median"
# In the deeper tests these are asked of three, in the slow ones of all: hundreds of operations, each a program.
BY_OPERATIONS = "jit equals eager", "called twice, the same"
# Compressors differ in one pure function: of them all the deeper tests ask this alone.
OF_ALIKE = "engines agree", "several devices equal one"


def not_so(report):
    """The properties that do not hold, or are not applicable, and what the report says of them."""
    print(report)
    return {row.property: row.holds for row in report.rows if row.holds != "yes"}


def each(names, ordinary=(), quick=()):
    """Parametrise over names; those that are not in `ordinary`, if there are any, for the deeper tests."""
    return grouped("name", list(names), [name for name in names if ordinary and name not in ordinary], quick)


def by_operations(names, deep):
    """Parametrise over names: those in `deep` for the deeper tests, the others for the slow ones."""
    marks = {name: [pytest.mark.xdist_group(name), pytest.mark.deep if name in deep else pytest.mark.slow] for name in names}
    return pytest.mark.parametrize("name", [pytest.param(name, marks=marks[name]) for name in names])


def aggregators(names):
    """The tests of these aggregators."""

    def asked(name, properties):
        return not_so(checks.aggregator(AGGREGATORS[name], clients=POPULATION, message=MESSAGE, only=properties))

    @each(names)
    def test_keeps_the_contract(name, x64):
        alone = "refused" if name in MORE_THAN_ONE else "no" if name in OTHERS_ALONE else "yes"
        expected = {"no clients give zero": "no"} if name in NOISY else {}
        properties = [ALONE, *(row for row in REQUIRED if row not in DEEPER_OF_AGGREGATORS + BY_OPERATIONS)]
        assert asked(name, properties) == expected | ({} if alone == "yes" else {ALONE: alone})

    @each(names, THREE_AGGREGATORS)
    def test_keeps_the_rest_of_the_contract(name, x64):
        drawn = {"half precision loses nothing": "not applicable"} if name in NOISY else {}
        assert asked(name, DEEPER_OF_AGGREGATORS) == drawn

    @by_operations(names, THREE_AGGREGATORS)
    def test_is_the_same_by_operations(name, x64):
        assert asked(name, BY_OPERATIONS) == {}

    @each(names, ON_DEVICES)
    def test_on_eight_devices(name, x64):
        """Slots that a Poisson cohort left empty among them."""
        aggregator = distributed(getattr(fl.aggregators, name), 32) if name in NOISE_OF_CLIENTS else AGGREGATORS[name]
        data, built = contract_data(), federate(aggregator=aggregator)
        state = jax.jit(built.init)(softmax_params(), jax.random.key(0))
        cohort = jax.jit(fl.sampling.poisson(0.6, capacity=POPULATION))(jax.random.key(2), data.size, np.int32(0))
        assert 0 < np.count_nonzero(cohort.weight) < POPULATION
        assert_close(over_devices(built, state, data, cohort), jax.jit(built.round)(state, data, cohort))

    return tests_in(locals())


def algorithms(names):
    """The tests of these algorithms."""

    def asked(name, properties):
        return not_so(checks.algorithm(ALGORITHMS[name], contract_data(), softmax_params(), values=(0.1, 0.2), only=properties))

    def deeper(name):
        return DEEPER_OF_ALGORITHMS if name in KINDS else OF_ALIKE

    @each(names, quick=SIX)
    def test_keeps_the_contract(name, x64):
        assert asked(name, [row for row in PROMISED if row not in BY_OPERATIONS + DEEPER_OF_ALGORITHMS + deeper(name)]) == {}

    @each(names, THREE_ALGORITHMS)
    def test_keeps_the_rest_of_the_contract(name, x64):
        assert asked(name, deeper(name)) == {}

    @by_operations(names, SIX)
    def test_is_the_same_by_operations(name, x64):
        assert asked(name, BY_OPERATIONS[:1]) == {}

    @by_operations(names, THREE_ALGORITHMS)
    def test_eight_devices_with_their_clients_examples_only_are_one_with_all(name, x64):
        built, data = ALGORITHMS[name](fl.packed(3)), contract_data()
        state = jax.jit(built.init)(softmax_params(), jax.random.key(0))
        weight = jax.numpy.array([1.0, 1, 0, 1, 1])
        cohort = fl.sampling.cohort(fl.round_key(state), data.size, jax.numpy.array([2, 0, 6, 4, 1]), weight)
        assert_close(over_devices(built, state, data, cohort), jax.jit(built.round)(state, data, cohort))

    return tests_in(locals())


def tests_in(names):
    """Those of a function's names that are tests."""
    return {name: value for name, value in names.items() if name.startswith("test_")}


def over_devices(built, state, data, cohort):
    """A round on eight devices, each with the examples of its own clients only."""
    with jax.set_mesh(mesh_of(jax.devices())):
        return jax.jit(lambda *operands: built.round(*operands))(everywhere(state), dealt(data, cohort.id), everywhere(cohort))
