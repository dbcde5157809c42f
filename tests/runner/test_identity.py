"""A resume goes on with the same run only: what makes other numbers is refused by its name, with a configuration and without."""

import functools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import softmax_data, softmax_loss, softmax_params
from segments import summary
from streamed import averaging

import fedjax_lite as fl
from fedjax_lite.runner.identity import first_difference, parts_of, sketch

SCALE = 2.0
FACTORS = [1.0]  # what a notebook may change beside the run


def scaled(params, batch, key):
    return SCALE * softmax_loss(params, batch, key)[0] * FACTORS[0]


ONCE = averaging()


def run(out, resume=True, algorithm=ONCE, params=None, sampler=None, rounds=2, key=8, **options):
    options = {"data": softmax_data(), "key": jax.random.key(key), "progress": False, "evaluate_every": 2} | options
    params = softmax_params() if params is None else params
    return fl.run(algorithm, params=params, sampler=sampler or fl.sampling.uniform(3), rounds=rounds, out=out, resume=resume, **options)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("done") / "run"
    run(out, resume=False)
    return out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": 9}, r"key\[1\] was 8, is now 9"),
        ({"params": softmax_params(2)}, r"params.* float32.* was about \[.*\], is now \["),
        ({"params": softmax_params() * (1 + 1e-4)}, r"params.* was about \[.*\], is now \["),
        ({"data": softmax_data(seed=3)}, "data.sha256 was '"),
        ({"algorithm": averaging(0.2)}, "parts.algorithm.*step_size was -0.1, is now -0.2"),
        ({"algorithm": fl.algorithms.fedavg(softmax_loss, optax.sgd(0.1), batches=fl.Batches(4), population=7)}, "parts.algorithm"),
        ({"sampler": fl.sampling.uniform(4)}, "parts.sampler.*clients was 3, is now 4"),
        ({"loss_fn": softmax_loss}, "parts.loss_fn was None, is now 'as algorithm.*loss_fn'"),
        ({"test": softmax_data()}, "test was None"),
    ],
)
def test_what_makes_other_numbers_is_refused_and_left_as_it_was(done, change, message):
    before = {path: path.read_bytes() for path in done.glob("*.*")}
    with pytest.raises(ValueError, match=f"belongs to another configuration: {message}"):
        run(done, **change)
    assert before == {path: path.read_bytes() for path in done.glob("*.*")}


@pytest.mark.deep
def test_the_same_run_goes_on_on_another_engine(done):
    assert len(run(done, algorithm=averaging(engine=fl.packed(2)), rounds=4).history) == 4
    assert summary(done)["key"] == [0, 8] and 3 in summary(done)["parts"].values() and "T" in summary(done)["date"]


def test_values_that_are_not_finite_are_told_apart_from_others_and_equal_themselves():
    """As of devices whose links take no time."""
    links = np.arange(40.0)
    endless = np.where(links % 2, np.inf, links)
    first, second, third = (parts_of(x=x) for x in (endless, np.where(endless == np.inf, 0, endless), links))
    assert not first_difference(first, first) and not first_difference(first, json.loads(json.dumps(first)))
    assert first_difference(first, second) and first_difference(first, third)


@pytest.mark.deep
def test_a_run_by_a_clock_without_links_goes_on(tmp_path):
    data = softmax_data(sizes=[2] * 20)
    algorithm = fl.algorithms.fedavg(softmax_loss, optax.sgd(0.1), batches=fl.Batches(2), population=20)
    sampler = fl.clock.timed(fl.sampling.uniform(3), fl.clock.lognormal(20))
    options = {"algorithm": algorithm, "data": data, "sampler": sampler}
    run(tmp_path / "run", resume=False, **options)
    assert len(run(tmp_path / "run", rounds=4, **options).history) == 4


@pytest.mark.deep
def test_a_resume_that_fails_leaves_a_finished_run_finished(tmp_path):
    def fails_late(state, data, cohort):
        jax.debug.callback(lambda: 1 / 0)
        return ONCE.round(state, data, cohort)

    config = {"client": {"rate": 0.1}}
    run(tmp_path / "run", resume=False, config=config)
    before = {path: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}
    with pytest.raises(Exception, match="ZeroDivisionError|division by zero"):
        run(tmp_path / "run", algorithm=ONCE._replace(round=fails_late), rounds=4, config=config)
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}


def test_functions_are_told_apart_by_what_is_in_them():
    def square(params, batch, key):
        return params**2

    def cube(params, batch, key):
        return params**3

    assert parts_of(loss_fn=square) != parts_of(loss_fn=cube)
    assert parts_of(f=functools.partial(square, 1.0)) != parts_of(f=functools.partial(square, 2.0))
    assert parts_of(f=jax.jit(square)) == {"f.function": parts_of(f=square)["f"]}
    assert parts_of(loss_fn=scaled)["loss_fn.SCALE"] == 2.0 and not any("FACTORS" in path for path in parts_of(loss_fn=scaled))
    first, second = jnp.arange(40.0), jnp.arange(40.0) + 1
    assert parts_of(x=first) == parts_of(x=np.asarray(first)) != parts_of(x=second)
    circle = [1]
    circle.append(circle)
    assert parts_of(circle=circle) == {"circle.0": 1}


def test_a_sketch_is_moved_by_another_model_and_not_by_rounding():
    model = {"w": jax.random.normal(jax.random.key(0), (40, 30)), "b": jnp.zeros(30)}
    (norm, projection), same = sketch(model)["['w'] float32[40, 30]"]["about"], sketch(jax.tree.map(lambda x: x * (1 + 1e-7), model))
    assert norm == pytest.approx(np.linalg.norm(model["w"]), rel=1e-6)
    assert same["['w'] float32[40, 30]"]["about"] == pytest.approx([norm, projection], rel=1e-5, abs=1e-5)


@pytest.mark.deep
def test_another_process_says_the_same():
    """Nothing of an address, a time or a hash's seed is in it."""
    code = "import sys; sys.path[:0] = 'tests/support', 'tests/runner'; import test_identity; print(test_identity.told())"
    texts = {
        subprocess.run([sys.executable, "-c", code], env=dict(PYTHONHASHSEED=seed), capture_output=True, text=True).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1 and len(texts.pop()) > 1000


def told():
    return json.dumps(parts_of(algorithm=averaging(loss_fn=scaled), sampler=fl.sampling.poisson(0.3)))
