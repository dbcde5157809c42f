"""Studies: each cell is its single run, in as few programs as its values allow; what is refused."""

import datetime
import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite.engine.compute import _lowered
from fedjax_lite.engine.over_runs import RUNS_AXIS
from fedjax_lite.engine.placement import everywhere
from fedjax_lite.engine.programs import programs_of
from fedjax_lite.runner.environment import environment
from fedjax_lite.study.grid import axes_of

study = functools.partial(fl.study, progress=False)


def descent(key, rate, f, aggregator, size):
    """Six steps towards a mean of a few draws, by two numbers, a name and a number that sets a shape."""
    drawn, place = jnp.sort(jax.random.normal(key, (size,))), jnp.arange(size)
    kept = (place >= f) & (place < size - f) if aggregator == "trimmed_mean" else place >= 0
    centre = jnp.sum(drawn * kept) / jnp.sum(kept)
    x, loss = jax.lax.scan(lambda x, _: (x - rate * (x - centre), (x - centre) ** 2), 1.0, length=6)
    return {"loss": loss, "norm": jnp.abs(x)}


def descent_alone(seed, rate, f, aggregator, size):
    """The same in closed form."""
    drawn = np.sort(draws(seed, size))
    centre = drawn[f : size - f].mean() if aggregator == "trimmed_mean" else drawn.mean()
    x = centre + (1 - rate) ** np.arange(7) * (1 - centre)
    return {"loss": (x[:-1] - centre) ** 2, "norm": np.abs(x[-1])}


@functools.cache
def draws(seed, size):
    return np.asarray(jax.random.normal(jax.random.key(seed), (size,)), np.float64)


def federated(key, rate, f, aggregator, size):
    """Six rounds of a small federated problem, by the same."""
    data, makers = softmax_data(), {"mean": fl.aggregators.mean, "trimmed_mean": functools.partial(fl.aggregators.trimmed_mean, f)}
    work = fl.sgd_work(softmax_loss, optax.sgd(rate))
    server, batches = fl.optimizer_server(optax.sgd(1.0)), fl.Batches(size, shuffle=False)
    algorithm = fl.federate(work, makers[aggregator](), server, batches=batches, population=data.population)
    params = softmax_params() + 0.01 * jax.random.normal(key, softmax_params().shape)
    state, history = fl.simulate(algorithm, data, params, fl.sampling.uniform(5), rounds=6, key=key)
    return {"loss": history["loss"], "norm": optax.tree.norm(algorithm.params(state))}


def federated_alone(seed, **values):
    return jax.jit(federated, static_argnames=("rate", "f", "aggregator", "size"))(jax.random.key(seed), **values)


def compiled(records):
    """How many programs of a study XLA has compiled."""
    return sum("XLA compilation of jit(on_device)" in record.getMessage() for record in records)


GRID = {"rate": [0.05, 0.2], "f": [0, 1, 2], "aggregator": ["mean", "trimmed_mean"], "size": [6, 8]}


@pytest.fixture(scope="module")
def small():
    """A study of every kind of value, and the messages of the compiler."""
    records, logger, handler = [], logging.getLogger("jax"), logging.Handler()
    handler.emit, propagate = records.append, logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    jax.config.update("jax_log_compiles", True)  # not jax.log_compiles: that is for this thread only
    try:
        return study(descent, GRID, seeds=[3, 1]), records
    finally:
        jax.config.update("jax_log_compiles", False)
        logger.removeHandler(handler)
        logger.propagate = propagate


def are_single_runs(found, alone, places):
    """Whether cells of a study of `GRID` are what `alone` gives for their seeds and values, and all differ."""
    assert found.results["loss"].shape == (2, 3, 2, 2, 2, 6) and found.results["norm"].shape == (2, 3, 2, 2, 2)
    for place in places:
        values = {name: x for axis, i in zip(found.axes, place, strict=True) for name, x in zip(axis.names, axis.rows[i], strict=True)}
        for i, seed in enumerate(found.seeds):
            expected = alone(seed, **values)
            for name in ("loss", "norm"):
                np.testing.assert_allclose(found.results[name][(*place, i)], expected[name], rtol=2e-6, atol=1e-6)
    different = np.unique(found.results["norm"].round(4))
    assert len(different) == 2 * 2 * 2 * 3  # seeds, rates, sizes, f; the trimmed mean of f = 0 is the mean


def test_each_cell_is_its_single_run(small):
    are_single_runs(small[0], descent_alone, [(0, 0, 0, 0), (1, 2, 1, 1), (0, 1, 1, 0), (1, 0, 0, 1)])


@pytest.mark.deep
def test_each_cell_of_a_federated_study_is_its_single_run():
    are_single_runs(study(federated, GRID, seeds=[3, 1]), federated_alone, [(0, 0, 0, 0), (1, 2, 1, 1)])


def test_numbers_share_a_program_and_names_and_shapes_do_not(small):
    found, records = small
    assert found.programs == 4 == compiled(records)  # aggregators x sizes
    assert found.rounds == {"loss": (1, 2, 3, 4, 5, 6)}


def side_by_side(experiment, together, axis, devices):
    """Three seeds of two cells."""
    mesh = jax.make_mesh((devices,), (axis,), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices])
    grid = {"rate": [0.05, 0.2], "f": [0], "aggregator": ["mean"], "size": [8]}
    with jax.set_mesh(mesh):
        found = study(experiment, grid, seeds=[3, 1, 2], together=together)
    assert found.programs == 1 and len(np.unique(found.results["norm"])) == 6
    return found.results["loss"][:, 0, 0, 0]


@pytest.mark.parametrize(
    "together, axis, devices",
    [(1, RUNS_AXIS, 1), (3, RUNS_AXIS, 1), (None, RUNS_AXIS, 4), (2, RUNS_AXIS, 2), (50, RUNS_AXIS, 2), (None, "clients", 2)],
)
def test_runs_side_by_side_and_on_several_devices_are_the_same(small, together, axis, devices):
    found = side_by_side(descent, together, axis, devices)
    np.testing.assert_allclose(found[:, :2], small[0].results["loss"][:, 0, 0, 1], rtol=1e-5, atol=1e-9)


@pytest.mark.deep
def test_federated_runs_side_by_side_and_on_several_devices_are_the_same():
    one, *others = (side_by_side(federated, *how) for how in ((1, RUNS_AXIS, 1), (2, RUNS_AXIS, 2), (None, "clients", 2)))
    for other in others:
        np.testing.assert_allclose(other, one, rtol=1e-5)


def test_arrays_that_lie_on_several_devices_already():
    mesh = jax.make_mesh((2,), (RUNS_AXIS,), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    with jax.set_mesh(mesh):
        x = everywhere(jnp.arange(3.0))
        found = study(lambda key, rate, name: {"x": rate * x[1] + x.sum()}, {"rate": [1.0, 2.0], "name": ["a"]}, seeds=1)
    assert found.results["x"].ravel().tolist() == [4, 5]


def test_arrays_are_operands_and_not_constants():
    big = jnp.arange(100_000, dtype=jnp.float32)
    (program,) = programs_of(
        lambda seed, rate: {"x": rate * (big[seed] + big.sum())}, [{"rate": 0.1, "seed": 1}, {"rate": 0.2, "seed": 2}], ["", ""]
    )
    assert [x.shape for x in program.closed_over] == [big.shape]
    lowered, _ = _lowered(program, None)
    assert len(lowered.as_text()) < 10_000


def test_numbers_that_python_must_know_are_programs_of_their_own():
    """Whatever the reason: a shape, a branch, a Python number wanted; the other names stay operands."""

    def experiment(key, size, sign, count, rate):
        x = jnp.ones(size).sum() * (1 if sign > 0 else -1) * sum(range(count))
        return {"x": rate * x}

    grid = {"size": [1, 2], "sign": [-1, 1], "count": [3, 4], "rate": [1.0, 0.5, 0.25]}
    found = study(experiment, grid, seeds=2)
    assert found.programs == 8
    size, sign, count, rate = np.meshgrid([1, 2], [-1, 1], [3, 6], [1.0, 0.5, 0.25], indexing="ij")
    np.testing.assert_array_equal(found.results["x"], np.repeat((size * sign * count * rate)[..., None], 2, axis=-1))


def test_every_value_is_checked_as_the_number_it_is():
    def experiment(key, rate, f):
        return {
            "x": rate * fl.aggregators.trimmed_mean(f).finish(({"w": jnp.ones((5, 1))}, fl.Client(*[jnp.ones(5)] * 5)), (), None)[0]["w"][0]
        }

    assert study(experiment, {"rate": [0.1, 0.2], "f": [0, 1, 2]}).programs == 1
    with pytest.raises(ValueError, match=r"trimmed_mean: num_byzantine must be .* got -1; in the cell rate=0.[12], f=-1"):
        study(experiment, {"rate": [0.1, 0.2], "f": [0, -1, 2]})


def test_values_may_be_objects_and_rows():
    found = study(
        lambda key, fn, a, b: {"x": fn(a) * len(b)},
        {"fn": {"sin": jnp.sin, "square": lambda x: x**2}, ("a", "b"): [(1.0, "x"), (2.0, "xy"), (3.0, "xy")]},
        seeds=1,
    )
    assert found.axes[0].labels == ("sin", "square") and found.axes[1].labels == ("1, x", "2, xy", "3, xy") and found.programs == 4
    np.testing.assert_allclose(found.results["x"][..., 0], [[np.sin(1.0), 2 * np.sin(2.0), 2 * np.sin(3.0)], [1, 8, 18]], rtol=1e-6)
    assert found.table("x")[1] | {"rank": 0} == {
        "fn": "sin",
        "a": 2.0,
        "b": "xy",
        "mean": pytest.approx(2 * np.sin(2.0)),
        "low": None,
        "high": None,
        "seeds": 1,
        "diverged": 0,
        "rank": 0,
    }


def test_an_empty_grid_is_the_seeds_alone():
    found = study(lambda key: {"x": jax.random.normal(key)}, {}, seeds=4)
    assert found.results["x"].shape == (4,) and found.programs == 1
    assert found.results["x"][2] == jax.random.normal(jax.random.key(2))
    (row,) = found.table("x")
    assert row["rank"] == 1 and row["seeds"] == 4


def test_numbers_keep_the_types_that_python_numbers_have():
    def experiment(key, rate, count):
        return {"x": jnp.bfloat16(2) * rate, "y": jnp.arange(3) * count}

    found = study(experiment, {"rate": [0.5, 1], "count": [1, 2]})
    assert (found.results["x"].dtype, found.results["y"].dtype) == (jnp.bfloat16, np.int32)


@pytest.mark.parametrize("number", [lambda x: x, np.int64, jnp.int32])
def test_points_of_curves_are_rounds_and_counts_may_be_of_any_kind(number):
    curves = {"each": jnp.ones(6), "some": jnp.ones(2), "one": 1.0}
    found = study(lambda key: curves, {}, seeds=number(2), rounds=number(6), together=number(2))
    assert found.rounds == {"each": (1, 2, 3, 4, 5, 6), "some": (3, 6)} and found.seeds == (0, 1)
    assert study(lambda key: {"x": curves["some"]}, {}, seeds=np.arange(2), every=number(5), rounds=10).rounds == {"x": (5, 10)}


def test_a_study_tells_what_it_was_made_with(tmp_path):
    """The arrays and the text of the experiment, when and how long, versions and the device."""
    x, y = jnp.arange(3.0), jnp.arange(4.0)

    def first(key, rate):
        return {"x": rate * x.sum()}

    made = [study(fn, {"rate": [1.0, 2.0]}, seeds=1).made for fn in (first, first, lambda key, rate: {"x": rate * y.sum()})]
    assert all(each["code"] == environment()["code"] and each["device"] == environment()["device"] for each in made)
    assert made[0]["experiment"]["name"].endswith("first") and made[0]["data"]["closed over"]["arrays"] == 1
    for name in ("experiment", "data"):
        assert made[0][name] == made[1][name] != made[2][name]
    when = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(made[0]["date"])
    assert 0 <= made[0]["seconds"] and datetime.timedelta() <= when < datetime.timedelta(hours=1)
    found = study(first, {"rate": [1.0]}, seeds=1)
    assert fl.Study.load(found.save(tmp_path)).made == found.made
    page = (tmp_path / "report.html").read_text()
    assert "Made with" in page and all(said in page for said in (found.made["date"], jax.__version__, found.made["experiment"]["sha256"]))


def test_axes_of_plain_values():
    axes, choices = axes_of({"x": np.linspace(0, 1, 3), "y": range(2), "z": jnp.ones(1), "w": [None, (200, 200)]})
    assert [axis.rows for axis in axes] == [((0.0,), (0.5,), (1.0,)), ((0,), (1,)), ((1.0,),), (("None",), ("(200, 200)",))]
    assert all(type(choice["x"]) is float for choice in choices[0]) and choices[3][0] == {"w": None}
