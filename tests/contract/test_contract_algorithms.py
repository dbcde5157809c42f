"""Every algorithm of the contract's list keeps it: what `fl.checks.algorithm` asks, in double precision."""

import jax
import pytest
from contract import ALGORITHMS, KINDS, SIX, assert_close, contract_data
from grouping import grouped
from problems import dealt, softmax_params

import fedjax_lite as fl
from fedjax_lite.checks.promised import PROMISED
from fedjax_lite.engine.placement import everywhere, mesh_of

pytestmark = pytest.mark.usefixtures("x64")

# What takes programs of its own is asked here of kinds, not of what differs in one pure function; and what takes most, of six.
OF_KINDS = "vmap equals the loop", "pieces equal the whole", "nothing touches the host"
DEEPER = "jit equals eager", "several devices equal one"

each_algorithm = grouped("name", list(ALGORITHMS))
others_deep = grouped("name", list(ALGORITHMS), deep=[name for name in ALGORITHMS if name not in SIX])


def not_so(name, asked):
    """The properties that do not hold, or are not applicable, and what the report says of them."""
    report = fl.checks.algorithm(ALGORITHMS[name], contract_data(), softmax_params(), values=(0.1, 0.2), only=asked)
    return {row.property: (row.holds, row.evidence) for row in report.rows if row.holds != "yes"}


@each_algorithm
def test_keeps_the_contract(name):
    left_out = DEEPER if name in KINDS else DEEPER + OF_KINDS
    assert not_so(name, [row for row in PROMISED if row not in left_out]) == {}


@others_deep
def test_keeps_the_rest_of_the_contract(name):
    assert not_so(name, DEEPER if name in KINDS else DEEPER + OF_KINDS) == {}


@pytest.mark.deep
@each_algorithm
def test_eight_devices_with_their_clients_examples_only_are_one_with_all(name):
    built, data = ALGORITHMS[name](fl.packed(3)), contract_data()
    state = jax.jit(built.init)(softmax_params(), jax.random.key(0))
    weight = jax.numpy.array([1.0, 1, 0, 1, 1])
    cohort = fl.sampling.cohort(fl.round_key(state), data.size, jax.numpy.array([2, 0, 6, 4, 1]), weight)
    with jax.set_mesh(mesh_of(jax.devices())):
        shared = jax.jit(lambda *operands: built.round(*operands))(everywhere(state), dealt(data, cohort.id), everywhere(cohort))
    assert_close(shared, jax.jit(built.round)(state, data, cohort))
