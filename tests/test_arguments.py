"""What a run takes: everything else is refused by its name before anything is traced; NumPy's and JAX's numbers are numbers."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import softmax_params
from segments import DATA, FEDSGD, KEY, SAMPLER, run

import fedjax_lite as fl

GIVEN = {"algorithm": FEDSGD, "data": DATA, "params": softmax_params(), "sampler": SAMPLER, "rounds": 1, "key": KEY}
MODEL = fl.models.linear(3)


@pytest.mark.parametrize("function", [fl.run, fl.plan])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algorithm": None}, "algorithm must be a fl.Algorithm, got None: call fl.federate"),
        ({"algorithm": fl.algorithms.fedavg}, "algorithm must be a fl.Algorithm, got a function: call"),
        ({"sampler": 3}, "sampler must be a function of the round's key, sizes and round, got 3: take one of fl.sampling"),
        ({"params": None}, r"params must hold the arrays of a model, got None: take model.init\(key, data.example\)"),
        ({"params": {}}, "params must hold the arrays of a model, got {}"),
        ({"params": MODEL}, "params must hold the arrays of a model, got a Model"),
        ({"params": {"w": "x"}}, r"params\['w'\] must be an array, got 'x'"),
        ({"key": None}, r"key must be one random key, got None: take jax.random.key\(0\)"),
        ({"key": 0}, "key must be one random key, got 0"),
        ({"key": jnp.zeros(2, jnp.uint32)}, r"key must be one random key, got an array uint32\[2\]"),
        ({"key": jax.random.split(KEY, 3)}, r"key must be one random key, got an array key<fry>\[3\]"),
        ({"converge": "test_loss"}, r"converge must be a fl.Convergence or None, got 'test_loss': fl.Convergence\('test_loss'"),
        ({"converge": {"metric": "loss"}}, "converge must be a fl.Convergence or None, got {'metric': 'loss'}"),
        (
            {"converge": fl.Convergence(patience=1.5)},
            "converge needs a whole number patience >= 1 and a tolerance >= 0, got .*patience=1.5",
        ),
        ({"rounds": 1.0}, "rounds must be a whole number of at least 1, got 1.0"),
        ({"rounds": np.int64(0)}, "rounds must be a whole number of at least 1, got"),
        ({"evaluate_every": np.bool(True)}, "evaluate_every must be a whole number of at least 1"),
    ],
)
def test_what_is_something_else_is_refused(function, change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        inspect.unwrap(function)(**GIVEN | change)


def test_a_run_is_not_for_tracers():
    with pytest.raises(TypeError, match="fl.run writes and prints, so jax cannot trace it: inside jit, vmap and grad take fl.simulate"):
        jax.vmap(lambda key: fl.run(**GIVEN | {"key": key}).params)(jax.random.split(KEY, 2))
    with pytest.raises(TypeError, match="resume must be True or False, got 'yes'"):
        inspect.unwrap(fl.run)(**GIVEN, resume="yes", out="run")


@pytest.mark.parametrize("number", [np.int64, np.int32, jnp.int32])
def test_whole_numbers_of_numpy_and_jax_are_whole_numbers(number):
    result = run(rounds=number(3), evaluate_every=number(3), checkpoint_every=number(3))
    assert [record["round"] for record in result.history] == [1, 2, 3] and result.history == run(rounds=3).history
