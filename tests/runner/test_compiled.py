"""A process can do any number of runs: what was compiled for an algorithm goes with it."""

import gc
import weakref

import jax
import pytest
from problems import softmax_data, softmax_loss, softmax_params
from streamed import algorithm, averaging, trained

import fedjax_lite as fl
from fedjax_lite.runner.segments import in_memory


@pytest.mark.parametrize("place", ["memory", pytest.param("disk", marks=pytest.mark.deep)])
def test_programs_go_with_their_algorithm(place, tmp_path):
    data = softmax_data() if place == "memory" else fl.data.save(tmp_path / "store", softmax_data())
    built = averaging()
    fl.run(built, data, softmax_params(), fl.sampling.everyone(), rounds=1, key=jax.random.key(0), loss_fn=softmax_loss, progress=False)
    gone = weakref.ref(built.round)
    del built
    gc.collect()
    assert gone() is None


def test_programs_stay_with_their_algorithm():
    sampler = fl.sampling.everyone()
    for key in (1, 2):
        trained(softmax_data(), sampler, key=jax.random.key(key), rounds=3)
    assert in_memory.programs(algorithm(None), sampler, softmax_loss) == 1
