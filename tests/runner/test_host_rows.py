"""What clients keep, in host memory: the same run as with all of it on the device, and only rows that were touched are stored."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract.works import noisy_work
from problems import SIZES, softmax_data, softmax_loss, softmax_params
from streamed import SAMPLERS

import fedjax_lite as fl
from fedjax_lite.engine.placement import mesh_of
from fedjax_lite.runner import host_rows, stream
from fedjax_lite.runner.host_rows import Rows, Touched, untouched

SOME = fl.sampling.dropout(fl.sampling.uniform(2), 0.3)  # in four rounds, not everyone is met


class Kept(NamedTuple):
    """State whose fields are called like those of `Touched`."""

    ids: jax.Array
    rows: dict


def keyed_work():
    """Work whose clients keep, in a tuple that looks like `Touched`, how often they came, a random key, which they pass on, and the point
    they drew at the start."""
    plain = noisy_work(0.1)

    def init(params, key):
        return Kept(jnp.int32(0), {"point": plain.init(params, key), "key": key})

    def start(shared, own, client):
        return plain.start(shared, own.rows["point"], client)

    def finish(shared, own, carry, client):
        message, point, metrics = plain.finish(shared, (), carry, client)
        return message, Kept(own.ids + 1, {"point": point, "key": jax.random.split(own.rows["key"])[0]}), metrics

    return fl.ClientWork(init, start, plain.step, finish)


def stateful(work=None, uplink=None):
    return fl.federate(
        work or fl.sgd_work(softmax_loss, optax.sgd(0.1)), fl.aggregators.weighted_mean(), fl.optimizer_server(optax.adam(0.1)),
        batches=fl.Batches(4, shuffle=False), population=len(SIZES), uplink=uplink, engine=fl.sequential(),
    )  # fmt: skip


ALGORITHM = stateful(keyed_work(), optax.trace(0.5))


def trained(on_host, sampler=SOME, data=None, rounds=4, algorithm=ALGORITHM, **more):
    options = {"key": jax.random.key(5), "evaluate_every": 2, "progress": False} | more
    data = softmax_data() if data is None else data
    return fl.run(algorithm, data, softmax_params(), sampler, rounds=rounds, own_on_host=on_host, **options)


def words(x):
    return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)


LIGHT = stateful(uplink=optax.trace(0.9))  # soon compiled


@functools.cache
def started(algorithm):
    return jax.jit(algorithm.init)(softmax_params(), jax.random.key(5))


def same(host, device, algorithm=ALGORITHM):
    """The host's rows are those of the clients that took part; the others are as they started."""
    assert host.history == device.history
    np.testing.assert_array_equal(host.params, device.params)
    start = started(algorithm)
    for part in ("own", "uplink"):
        touched, whole, first = (getattr(state, part) for state in (host.state, device.state, start))
        assert isinstance(touched, Touched) and len(set(touched.ids.tolist())) == len(touched.ids)
        others = np.setdiff1d(np.arange(len(SIZES)), touched.ids)
        for rows, all_rows, first_rows in zip(*map(jax.tree.leaves, (touched.rows, whole, first)), strict=True):
            np.testing.assert_array_equal(rows, words(all_rows)[touched.ids])
            np.testing.assert_array_equal(words(first_rows)[others], words(all_rows)[others])
    return host.state.own.ids


@functools.cache
def on_device(name):
    return trained(False, algorithm=KEPT[name])


@pytest.fixture
def whole():
    return on_device("own and uplink")


def test_rows_in_host_memory_are_rows_on_the_device_to_the_bit(whole):
    ids = same(trained(True), whole)
    assert 0 < len(ids) < len(SIZES)


@pytest.mark.parametrize(
    "name", [pytest.param("some", marks=pytest.mark.slow), *(pytest.param(x, marks=pytest.mark.deep) for x in ("everyone", "poisson"))]
)
def test_with_other_cohorts(name):
    same_as_on_the_device(SAMPLERS[name])


def same_as_on_the_device(sampler):
    same(*(trained(on_host, sampler, algorithm=LIGHT, loss_fn=softmax_loss) for on_host in (True, False)), LIGHT)


@pytest.mark.deep
def test_examples_on_disk_too(tmp_path, whole):
    same(trained(True, data=fl.data.save(tmp_path / "s", softmax_data())), whole)


@pytest.mark.deep
def test_on_several_devices(whole):
    with jax.set_mesh(mesh_of(jax.devices()[:2])):
        np.testing.assert_allclose(trained(True).params, whole.params, rtol=1e-5, atol=1e-6)


KEPT = {
    "own and uplink": ALGORITHM,
    "uplink alone": LIGHT,
    "own alone": stateful(keyed_work()),
    "nothing": stateful(),
}


FEW = (("own and uplink", True, False),)
MORE = [("own and uplink", False, True), ("own and uplink", True, True)]
MORE += [(name, first, not first) for name in list(KEPT)[1:] for first in (True, False)]
REST = [x for x in itertools.product(KEPT, (True, False), (True, False)) if x not in (*FEW, *MORE)]
TIERS = (*FEW, *(pytest.param(*x, marks=pytest.mark.deep) for x in MORE), *(pytest.param(*x, marks=pytest.mark.slow) for x in REST))


@pytest.mark.parametrize(("name", "first", "second"), TIERS)
def test_saved_in_one_place_resumed_in_the_other(name, first, second, tmp_path):
    """To the bit the state of a run that was never stopped."""
    algorithm, out = KEPT[name], tmp_path / "run"
    whole = on_device(name)
    trained(first, rounds=2, out=out, algorithm=algorithm)
    resumed = trained(second, out=out, resume=True, algorithm=algorithm)
    assert resumed.history == whole.history
    np.testing.assert_array_equal(resumed.params, whole.params)
    if not second:
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(words(x), words(y)), resumed.state, whole.state)


@pytest.mark.deep
def test_slots_outside_the_population_are_nobodys_and_a_round_may_be_empty():
    def sample(key, sizes, round):
        return fl.sampling.cohort(key, sizes, jnp.array([6, -1, 7, round, 5]), jnp.ones(5) * (round != 1))

    same_as_on_the_device(sample)


@pytest.mark.parametrize("held", [stream.HELD, 0])
def test_rounds_are_one_program_where_rows_are_few(held, monkeypatch, whole):
    """The segment's rows on the device, or one round's: the same bits."""
    monkeypatch.setattr(stream, "HELD", held)
    lengths = []
    monkeypatch.setattr(stream, "_rounds", lambda *args, rounds=stream._rounds: (lengths.append(len(args[-1].id)), rounds(*args))[1])
    same(trained(True), whole)
    assert lengths == ([2, 2] if held else [1] * 4)


@pytest.mark.parametrize("on_host", [None, pytest.param(True, marks=pytest.mark.deep)])
def test_a_population_of_which_few_are_touched(on_host):
    """10^6 clients of 18 numbers each would be 72 MB; three rounds of five clients keep fifteen rows, whether asked for or not."""
    population = 10**6
    ones = {"x": np.ones((10, 6), np.float32), "y": np.zeros(10, np.int32)}
    start = np.arange(population, dtype=np.int32) % 10
    data = fl.FederatedData(jax.tree.map(jnp.asarray, ones), jnp.asarray(start), jnp.ones(population, jnp.int32), 1)
    algorithm = fl.federate(
        fl.sgd_work(softmax_loss, optax.sgd(0.1)), fl.aggregators.mean(), fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(1), population=population, uplink=optax.trace(0.5), engine=fl.sequential(),
    )  # fmt: skip
    key = jax.random.key(0)
    result = fl.run(algorithm, data, softmax_params(), fl.sampling.uniform(5), rounds=3, key=key, own_on_host=on_host, progress=False)
    assert result.state.uplink.ids.shape == (15,) and jax.tree.leaves(result.state.uplink.rows)[0].shape == (15, 6, 3)


@pytest.mark.parametrize(("memory", "population"), [(None, 9), (6 * 4, 9), (10**9, 9), (10**18, 10**15)])  # the last can't be reserved
def test_new_rows_find_room_and_old_ones_their_place(memory, population, monkeypatch):
    monkeypatch.setattr(host_rows, "host_memory", lambda: memory)
    first = lambda ids: ({"x": jnp.asarray(ids)[:, None] * 10.0}, ())  # noqa: E731
    state = fl.State(0, jax.random.key(0), (), (), *map(untouched, jax.eval_shape(first, jax.ShapeDtypeStruct((9,), jnp.int32))))
    rows, oracle = Rows(state, population, first), {id: id * 10.0 for id in range(9)}
    for ids in ([3, 9, 1], [1, 8, 0], [9, 9, 9], [7, 6, 3], [2, 4, 5]):
        ids = np.array([population if id == 9 else id for id in ids])
        taken = np.array(rows.take(ids)[0]["x"])[:, 0]
        assert [x for x, id in zip(taken, ids) if id < 9] == [oracle[id] for id in ids if id < 9]
        rows.put(ids, ({"x": taken[:, None] + 1}, ()))
        oracle |= {id: oracle[id] + 1 for id in ids if id < 9}
    own = rows.within(state).own
    assert dict(zip(own.ids.tolist(), own.rows["x"][:, 0].tolist())) == oracle


def test_an_algorithm_that_does_not_say_how_clients_start_is_refused():
    with pytest.raises(ValueError, match="own_on_host=True needs an algorithm whose layout tells"):
        fl.run(ALGORITHM._replace(layout=None), softmax_data(), softmax_params(), SOME, rounds=1, key=jax.random.key(0), own_on_host=True)


@pytest.mark.parametrize("name", ["cfl", "dpsgd"])
def test_models_that_the_server_has_by_client_are_not_looked_up_by_row(name):
    """Of their clients all take part, so rows in host memory would save nothing."""
    build = {"cfl": fl.algorithms.cfl, "dpsgd": functools.partial(fl.algorithms.dpsgd, mixing=np.eye(len(SIZES)))}[name]
    algorithm = build(softmax_loss, optax.sgd(0.1), batches=fl.Batches(2), population=len(SIZES))
    with pytest.raises(ValueError, match="own_on_host=True needs .* some take part"):
        fl.run(algorithm, softmax_data(), softmax_params(), fl.sampling.everyone(), rounds=1, key=jax.random.key(0), own_on_host=True)
