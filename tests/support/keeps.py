"""The contract's tests, for a group of names: `globals().update(aggregators(SUMS))` in a test file."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from contract.groups import ALGORITHMS, BY_TABLE, KINDS, RELATED, SIX
from contract.population import POPULATION, assert_close, contract_data
from contract.rules import AGGREGATORS, MORE_THAN_ONE, NOISE_OF_CLIENTS, NOISY, ONE_OF_EACH
from contract.works import federate
from grouping import grouped, tiered
from problems import FEATURES, dealt, softmax_params

import fedjax_lite as fl
from fedjax_lite import checks
from fedjax_lite.checks.aggregator_contract import REQUIRED
from fedjax_lite.checks.algorithm_contract import PROMISED
from fedjax_lite.engine.placement import everywhere, mesh_of

MESSAGE = {"w": np.zeros((3, 2)), "b": np.zeros(())}
ALONE = "one client is its own aggregate"
# Of one client they make something else: a sign, zero (there is nobody beside the server's own), a share, whole numbers, noise.
OTHERS_ALONE = "sign_majority", "fltrust", "dp_mean", "secure_mean", "secure_mean ring", *NOISY, *NOISE_OF_CLIENTS

# In the ordinary tests these are asked of three aggregators and of no algorithm, in the deeper ones of one of each kind, in the slow ones
# of all.
DEEPER_OF_AGGREGATORS = "half precision loses nothing", "vmap equals the loop", "nothing touches the host"
DEEPER_OF_ALGORITHMS = "several devices equal one", "vmap equals the loop", "pieces equal the whole", "nothing touches the host"
THREE_AGGREGATORS, THREE_ALGORITHMS = ("weighted_mean", "krum", "dp_mean adaptive"), ("work sgd", "random at every place", "uplink top_k")
ON_DEVICES = ("weighted_mean",)
# In the deeper tests these are asked of three, in the slow ones of all: each takes hundreds of operations, each a program.
BY_OPERATIONS = "jit equals eager", "called twice, the same"
# Compressors differ in one pure function, and families are parts of one: this the slow tests ask of them all.
OF_ALIKE = "engines agree", "several devices equal one"
SUMS_OF_EXAMPLES = fl.ClientWork(
    init=lambda params, key: (),
    start=lambda shared, own, client: shared.params,
    step=lambda shared, own, carry, batch: (carry + jnp.sum(batch.mask[:, None] * batch.examples["x"], axis=0), {}),
    finish=lambda shared, own, carry, client: (carry - shared.params, (), {}),
)


def not_so(report):
    """The properties that do not hold, or are not applicable, and what the report says of them."""
    print(report)
    return {row.property: row.holds for row in report.rows if row.holds != "yes"}


def aggregators(names):
    """The tests of these aggregators."""

    def asked(name, properties):
        return not_so(checks.aggregator(AGGREGATORS[name], clients=POPULATION, message=MESSAGE, only=properties))

    @tiered("name", names, {*ONE_OF_EACH, *THREE_AGGREGATORS} - {*RELATED}, RELATED)
    def test_keeps_the_contract(name, x64):
        alone = "refused" if name in MORE_THAN_ONE else "no" if name in OTHERS_ALONE else "yes"
        expected = {"no clients give zero": "no"} if name in NOISY else {}
        properties = [ALONE, *(row for row in REQUIRED if row not in DEEPER_OF_AGGREGATORS + BY_OPERATIONS)]
        assert asked(name, properties) == expected | ({} if alone == "yes" else {ALONE: alone})

    @tiered("name", names, THREE_AGGREGATORS, ONE_OF_EACH)
    def test_keeps_the_rest_of_the_contract(name, x64):
        drawn = {"half precision loses nothing": "not applicable"} if name in NOISY else {}
        assert asked(name, DEEPER_OF_AGGREGATORS) == drawn

    @tiered("name", names, (), THREE_AGGREGATORS)
    def test_is_the_same_by_operations(name, x64):
        assert asked(name, BY_OPERATIONS) == {}

    @tiered("name", names, ON_DEVICES, ONE_OF_EACH)
    def test_on_eight_devices(name, x64):
        """Slots that a Poisson cohort left empty among them; a client's message is the sum of its examples."""
        check_on_eight_devices(federate(SUMS_OF_EXAMPLES, AGGREGATORS[name]), np.zeros(FEATURES), some_of_the_clients())

    return tests_in(locals())


def algorithms(names):
    """The tests of these algorithms."""

    def asked(name, properties):
        return not_so(checks.algorithm(ALGORITHMS[name], contract_data(), softmax_params(), values=(0.1, 0.2), only=properties))

    def deeper(name):
        return DEEPER_OF_ALGORITHMS if name in KINDS else OF_ALIKE

    @grouped("name", list(names), deep=[*BY_TABLE, *RELATED], quick=SIX)
    def test_keeps_the_contract(name, x64):
        assert asked(name, [row for row in PROMISED if row not in BY_OPERATIONS + DEEPER_OF_ALGORITHMS + deeper(name)]) == {}

    @tiered("name", names, (), KINDS)
    def test_keeps_the_rest_of_the_contract(name, x64):
        assert asked(name, deeper(name)) == {}

    @tiered("name", names, (), THREE_ALGORITHMS)
    def test_is_the_same_by_operations(name, x64):
        assert asked(name, BY_OPERATIONS[:1]) == {}

    @tiered("name", names, (), THREE_ALGORITHMS)
    def test_eight_devices_with_their_clients_examples_only_are_one_with_all(name, x64):
        ids, weight = jnp.array([2, 0, 6, 4, 1]), jnp.array([1.0, 1, 0, 1, 1])
        cohort = fl.sampling.cohort(jax.random.key(2), contract_data().size, ids, weight)
        check_on_eight_devices(ALGORITHMS[name](fl.packed(3)), softmax_params(), cohort)

    return tests_in(locals())


def tests_in(names):
    """Those of a function's names that are tests."""
    return {name: value for name, value in names.items() if name.startswith("test_")}


@functools.cache
def some_of_the_clients():
    """A Poisson cohort, which leaves slots empty."""
    cohort = jax.jit(fl.sampling.poisson(0.6, capacity=POPULATION))(jax.random.key(2), contract_data().size, np.int32(0))
    assert 0 < np.count_nonzero(cohort.weight) < POPULATION
    return cohort


def check_on_eight_devices(built, params, cohort):
    """A first round on eight devices, each with the examples of its own clients only, is that of one with all."""
    data, key = contract_data(), jax.random.key(0)

    def first_round(params, key, data, cohort):
        return built.round(built.init(params, key), data, cohort)

    expected = jax.jit(first_round)(params, key, data, cohort)
    with jax.set_mesh(mesh_of(jax.devices())):
        found = jax.jit(lambda *operands: first_round(*operands))(*everywhere((params, key)), dealt(data, cohort.id), everywhere(cohort))
    assert_close(found, expected)
