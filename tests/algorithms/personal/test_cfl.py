"""CFL: the table's five updates, groups with opposite labels, IID clients, and what a cut does to the clusters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract.population import contract_data
from keeps import check_on_eight_devices, not_so
from problems import SIZES, simulate, softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite import checks

pytestmark = pytest.mark.usefixtures("x64")
ALL = fl.sampling.everyone()
# The table: five updates; their mean has the norm 0.16, or 0.62 by numbers of examples, the longest 1.02; across the best cut -0.89.
UPDATES, NUMBERS = np.array([[1, 0.2], [0.9, -0.1], [-1, 0.1], [-0.8, -0.3], [-0.9, 0]]), (10, 20, 30, 40, 100)
MEAN, MEAN_BY_EXAMPLES, LONGEST, ACROSS = 0.1612451550, 0.6216309194, 1.0198039027, -0.8918272424
OBLONG = np.array([(0.6, 0.9), (-0.6, 1.1), (0.6, -1.0), (-0.6, -1.2), (0.7, 1), (-0.6, 1.2), (0.5, -1.1), (-0.7, -1), (1e300, 0), (1, 1)])


def along(params, batch, key):
    """A loss whose negative gradient is the update, wherever the model is."""
    return -batch["d"] @ params


def started(updates=UPDATES, numbers=NUMBERS, rounds=1, **more):
    """The algorithm, and the state and history of some rounds of clients that send these updates."""
    data = fl.FederatedData.from_clients([{"d": np.tile(d, (n, 1))} for d, n in zip(updates, numbers, strict=True)], allow_empty=True)
    given = dict(batches=fl.Batches(None), population=len(updates), eps1=0.2, eps2=1.0, first_round=0, max_clusters=4, engine=fl.padded())
    algorithm = fl.algorithms.cfl(along, optax.sgd(1.0), **given | more)
    return algorithm, *simulate(algorithm, data, jnp.zeros(updates.shape[1]), ALL, rounds=rounds, key=jax.random.key(0))


@functools.cache
def of_the_table(by_examples, relative, linkage):
    """How many clusters the table's clients are in after a round, and in which: a function of eps1, eps2 and gamma."""
    data = fl.FederatedData.from_clients([{"d": np.tile(d, (n, 1))} for d, n in zip(UPDATES, NUMBERS, strict=True)])

    @jax.jit
    def run(eps1, eps2, gamma):
        algorithm = fl.algorithms.cfl(
            along, optax.sgd(1.0), batches=fl.Batches(None), population=5, eps1=eps1, eps2=eps2, gamma=gamma, first_round=0, max_clusters=2,
            by_examples=by_examples, relative=relative, linkage=linkage, engine=fl.padded(),
        )  # fmt: skip
        state, _ = fl.simulate(algorithm, data, jnp.zeros(2), ALL, rounds=1, key=jax.random.key(0))
        return state.server.number, state.server.cluster, algorithm.models(state)

    return run


@pytest.mark.parametrize(
    ("by_examples", "relative", "linkage"),
    [(True, False, "single"), *(pytest.param(*each, "complete", marks=pytest.mark.deep) for each in ((False, False), (False, True)))],
)
def test_the_tables_updates_are_cut_where_its_numbers_say(by_examples, relative, linkage):
    run = of_the_table(by_examples, relative, linkage)
    mean = MEAN_BY_EXAMPLES if by_examples else MEAN / np.linalg.norm(UPDATES, axis=1).mean() if relative else MEAN
    gamma = 1.0  # a cut whose largest cosine across is below 0
    near = 1e-9
    number, cluster, models = run(mean + near, LONGEST - near, gamma)
    assert number == 2 and cluster.tolist() == [0, 0, 1, 1, 1]
    weights = np.array(NUMBERS if by_examples else [1] * 5)
    halves = [np.average(UPDATES[part], axis=0, weights=weights[part]) for part in (slice(0, 2), slice(2, 5))]
    np.testing.assert_allclose(models, [halves[0]] * 2 + [halves[1]] * 3, atol=1e-12)
    assert run(mean - near, LONGEST - near, gamma)[0] == run(mean + near, LONGEST + near, gamma)[0] == 1


def test_a_cut_counts_only_where_the_parts_are_far_enough_apart():
    """Two pairs at 60 degrees: the cosine across is 1/2, and sqrt((1 - gamma) / 2) is that for gamma = 1/2."""
    corners = np.array([[0, 1.0], [0, 1], [np.sqrt(3) / 2, 0.5], [np.sqrt(3) / 2, 0.5]])
    number = jax.jit(lambda gamma: started(corners, [1] * 4, gamma=gamma, eps1=2.0, eps2=0.5)[1].server.number)
    assert [number(gamma) for gamma in (0.49, 0.51)] == [2, 1]


@pytest.mark.deep
def test_clusters_are_cut_again_and_ids_are_those_of_the_clients():
    """Four corners of an oblong: its long sides are cut apart, then each one's ends. One message is infinite, one client has no example."""
    algorithm, state, history = started(OBLONG, [1] * 9 + [0], rounds=3, eps1=1.5, eps2=0.5)
    assert history["clusters"].tolist() == [2, 4, 4] and history["non_finite"].tolist() == [1, 1, 1]
    cluster, number = np.asarray(state.server.cluster), np.bincount(state.server.cluster)
    groups = [set(np.flatnonzero(cluster[:8] == c).tolist()) for c in range(4)]
    assert groups[0] == {0, 4} and {frozenset(group) for group in groups} == {frozenset({k, k + 4}) for k in range(4)}
    assert cluster[8] == cluster[9] == 0  # they stay where they were
    np.testing.assert_array_equal(algorithm.params(state).clients, number)
    for k in range(4):  # the first round moves each half by its mean, the others each pair
        half = [0, 1, 4, 5] if k < 2 else [2, 3, 6, 7]
        np.testing.assert_allclose(algorithm.models(state)[k], OBLONG[half].mean(0) + 2 * OBLONG[[k, k + 4]].mean(0), atol=1e-12)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("more", "clusters"),
    [(dict(max_clusters=3), [2, 3, 3]), (dict(first_round=2), [1, 1, 2]), (dict(min_size=5), [2, 2, 2]), (dict(min_size=9), [1, 1, 1])],
)
def test_cuts_are_made_where_there_are_slots_rounds_and_clients_for_them(more, clusters):
    given = dict(updates=OBLONG, numbers=[1] * 9 + [0], eps1=1.5, eps2=0.5, min_size=3)
    assert started(rounds=3, **given | more)[2]["clusters"].tolist() == clusters


@pytest.mark.deep
def test_one_client_is_never_cut():
    algorithm, state, _ = started(np.ones((1, 2)), [3], rounds=2, eps1=9.0, eps2=0.0, min_size=2)
    np.testing.assert_allclose(algorithm.models(state), [[2, 2]])
    assert state.server.number == 1


def labelled(flipped, rng):
    """Clients of one softmax regression, some with opposite labels."""
    truth = rng.normal(size=6)
    for flip in flipped:
        x = rng.normal(size=(40, 6))
        yield {"x": x, "y": (x @ truth > 0) ^ flip}


@pytest.mark.parametrize("linkage", ["single", pytest.param("complete", marks=pytest.mark.deep)])
def test_opposite_labels_are_cut_apart_and_iid_clients_are_not(linkage):
    flipped = np.array([True, False, False, True, True, False])
    rng = np.random.default_rng(0)
    apart, alike = (fl.FederatedData.from_clients(list(labelled(flips, rng))) for flips in (flipped, 0 * flipped > 0))

    def loss_fn(params, batch, key):
        return softmax_loss(params, {**batch, "y": batch["y"].astype(jnp.int32)}, key)

    algorithm = fl.algorithms.cfl(
        loss_fn, optax.sgd(0.5), batches=fl.Batches(None, epochs=5), population=6, eps1=0.15, relative=True, eps2=0.1, first_round=3,
        linkage=linkage, gamma=0.5,
    )  # fmt: skip
    run = lambda data: simulate(algorithm, data, jnp.zeros((6, 2)), ALL, rounds=40, key=jax.random.key(0))  # noqa: E731
    state, history = run(apart)
    assert history["clusters"][-1] == 2 and history["clusters"][2] == 1
    np.testing.assert_array_equal(state.server.cluster == state.server.cluster[0], flipped)
    own = fl.evaluate_each(loss_fn, algorithm.models(state), apart)["accuracy"].value()
    assert own.min() > 0.9
    assert run(alike)[1]["clusters"].tolist() == [1] * 40


def made(engine=None, rate=0.1):
    return fl.algorithms.cfl(
        softmax_loss, optax.sgd(rate), batches=fl.Batches(4, shuffle=False), population=len(SIZES), eps1=5.0, eps2=0.0, first_round=1,
        max_clusters=3, engine=engine,
    )  # fmt: skip


@pytest.mark.deep
def test_it_keeps_the_contract_for_cohorts_of_all():
    """But what asks for cohorts of a few, which it refuses."""
    few = "empty slots do not matter", "engines agree"
    data = softmax_data()
    for name in [name for name in checks.algorithm_contract.PROMISED if name not in few and name != "jit equals eager"]:
        report = checks.algorithm(made, data, softmax_params(), clients=len(SIZES), values=(0.1, 0.2), only=[name])
        assert not_so(report) == {}, name
    cohort = fl.sampling.cohort(jax.random.key(2), contract_data().size, jnp.arange(len(SIZES)))
    check_on_eight_devices(made(), softmax_params(), cohort)
    runs = [jax.jit(lambda data, one=made(engine): fl.simulate(one, data, softmax_params(), ALL, rounds=3, key=jax.random.key(0)))(data)
            for engine in (fl.packed(2), fl.padded(), fl.sequential())]  # fmt: skip
    assert runs[0][0].server.number == 3
    for run in runs[1:]:
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12), run[0].server, runs[0][0].server)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (dict(eps1=-1.0), "cfl: eps1 must be finite and not negative, got -1"),
        (dict(eps2=float("nan")), "cfl: eps2 must be finite and not negative, got nan"),
        (dict(min_size=1), "cfl: min_size must be a whole number of at least 2, got 1"),
        (dict(first_round=-1), "cfl: first_round must be a whole number of at least 0, got -1"),
        (dict(max_clusters=0), "cfl: max_clusters must be a whole number of at least 1, got 0"),
        (dict(linkage="average"), 'cfl: linkage must be "single" or "complete", got \'average\''),
        (dict(gamma=2), r"cfl: gamma must be in \[0, 1\], got 2"),
    ],
)
def test_what_is_refused(more, message):
    with pytest.raises(ValueError, match=message):
        started(**more)


def test_a_cohort_of_some_is_refused():
    with pytest.raises(ValueError, match="cfl: 3 of 7 clients take part.*or take fl.algorithms.ifca"):
        fl.simulate(made(), softmax_data(), softmax_params(), fl.sampling.uniform(3), rounds=1, key=jax.random.key(0))
