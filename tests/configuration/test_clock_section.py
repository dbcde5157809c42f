"""The table [clock]: devices and availability of a configuration, of one run and of a study's seeds."""

import jax
import numpy as np
import pytest
from tiny import QUICK, TINY, replaced

import fedjax_lite as fl
from fedjax_lite.clock.arrivals import durations_of
from fedjax_lite.configuration.build import build
from fedjax_lite.configuration.config import load
from fedjax_lite.configuration.study import study_of
from fedjax_lite.configuration.table import ConfigError

MORE = "".join(f"[[data.clients]]\nx = [[0.{k}, 0.5]]\ny = [{k % 3}]\n" for k in range(4))
SERVER = '[server]\noptimizer = { name = "sgd", learning_rate = 1.0 }\n'
LINEAR, FEDAVG = ('"mlp"\nhidden = [3]', '"linear"'), ("[sampling]", '[algorithm]\nname = "fedavg"\n[sampling]')
TEXT = replaced(TINY, ("[model]", MORE + "[model]"), (SERVER, ""), FEDAVG, LINEAR, *QUICK)
CLOCK = """
[clock]
devices = { name = "lognormal", steps = 0.01, sigma = 1.0, download = 1e3, upload = 500.0 }
availability = { name = "day_night", spread = 0.3 }
"""


@pytest.fixture
def config(tmp_path):
    def written(*overrides, more=CLOCK):
        file = tmp_path / "tiny.toml"
        file.write_text(TEXT + more)
        return load(file, overrides)

    return written


def test_a_run_has_the_clock_that_python_makes(config):
    built = build(config("clock.deadline=2000.0", "clock.over_selection=1.5"))
    algorithm, data, params, sampler = built.args
    devices = fl.clock.lognormal(data.population, steps=0.01, sigma=1.0, download=1e3, upload=500.0, seed=3)
    law = fl.availability.day_night(spread=0.3)
    by_hand = fl.clock.timed(fl.sampling.uniform(2), devices, availability=law, deadline=2000.0, over_selection=1.5)
    run = jax.jit(
        lambda data, params: [fl.simulate(algorithm, data, params, each, rounds=3, key=jax.random.key(0))[1] for each in samplers]
    )
    samplers = (sampler, by_hand)
    jax.tree.map(np.testing.assert_array_equal, *run(data, params))


FEDBUFF = ('algorithm={ name = "fedbuff", buffer = 2 }', "sampling.clients=3")


def test_an_asynchronous_algorithm_takes_its_concurrency_from_the_sampler(config):
    built = build(config(*FEDBUFF, "clock.over_selection=1.0"))
    algorithm, data, params, sampler = built.args
    devices = fl.clock.lognormal(data.population, steps=0.01, sigma=1.0, download=1e3, upload=500.0, seed=3)
    given = {"concurrency": 3, "rounds": built.keywords["rounds"], "availability": fl.availability.day_night(spread=0.3), "seed": 3}
    expected = fl.clock.arrivals(algorithm, data, params, devices, **given)
    jax.tree.map(np.testing.assert_array_equal, sampler.arrivals, expected)
    queue = build(config(*FEDBUFF, "sampling.name=cyclic")).args[3].arrivals
    in_order = fl.clock.arrivals(algorithm, data, params, devices, order="queue", **given)
    jax.tree.map(np.testing.assert_array_equal, queue, in_order)


GRID = """
[grid]
"algorithm, clock.over_selection" = [[{ name = "fedavg" }, 1.5], [{ name = "fedbuff", buffer = 2 }, 1.0]]
"client.optimizer.learning_rate" = [0.1, 0.2]
seeds = 2
"""


@pytest.mark.deep
def test_a_study_gives_each_seed_its_devices_and_equals_its_runs(config):
    study = study_of(config(more=CLOCK + GRID))(progress=False)
    assert study.programs == 2  # seeds and learning rates are operands
    assert set(study.made["staleness"]) == {
        f"algorithm=fedbuff, clock.over_selection=1, client.optimizer.learning_rate={rate}" for rate in ("0.1", "0.2")
    }
    hours = study.results["virtual_hours"]
    assert (hours[:, 0] == hours[:, 1]).all() and (hours[:, :, 0] != hours[:, :, 1]).all()
    for place, overrides in enumerate([("algorithm.name=fedavg", "clock.over_selection=1.5"), FEDBUFF[:1]]):
        result = build(config("seed=4", "client.optimizer.learning_rate=0.2", *overrides))(progress=False)
        assert result.history[-1]["virtual_hours"] == pytest.approx(float(hours[place, 1, 1, -1]), rel=1e-6)
        assert result.history[-1]["train_loss"] == pytest.approx(float(study.results["train_loss"][place, 1, 1, -1]), rel=1e-5)
    row = study.table("train_loss", target=100.0)[0]
    assert row["hours_to_target"] == pytest.approx(float(hours[0, 0, :, 0].mean()))


REFUSED = {
    "no devices": (["clock={ deadline = 3.0 }"], "clock: give devices, such as"),
    "unknown devices": (["clock.devices.name=phone"], "unknown devices 'phone'; did you mean 'phones'"),
    "unknown law": (["clock.availability.name=night"], "unknown availability 'night'"),
    "unknown key": (["clock.deadlines=3.0"], "clock.deadlines: unknown key; did you mean 'deadline'"),
    "speed": (["clock.devices.steps=0.0"], "clock.devices.steps: lognormal: steps must be a speed above 0"),
    "deadline": (["clock.deadline=0.001"], "timed: deadline=0.001 is over before any client can have sent its update"),
    "seed": (["clock.seed=-1"], "clock.seed: must be a whole number"),
    "no clock": ([*FEDBUFF, "clock=3"], "clock: must be a table"),
    "buffer": (['algorithm={ name = "fedbuff", buffer = 3 }'], "buffer=3 is larger than concurrency=2"),
    "sampler": (
        [*FEDBUFF, 'sampling={ name = "poisson", rate = 0.5 }'],
        "sampling.name: an asynchronous server starts clients one by one, and takes uniform, everyone, cyclic, weighted, not 'poisson'",
    ),
    "deadline of arrivals": ([*FEDBUFF, "clock.deadline=3.0"], "clock.deadline: unknown key"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_clock_is_refused(name, config):
    overrides, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        build(config(*overrides))


def test_an_asynchronous_algorithm_needs_a_clock(config):
    with pytest.raises(ConfigError, match="clock: is missing: clients of an asynchronous server arrive by their speed; give devices"):
        build(config(*FEDBUFF, more=""))


def test_a_private_aggregator_knows_no_clock_that_leaves_clients_out(config):
    private = 'aggregator={ name = "dp_mean", clip = 1.0, noise_multiplier = 1.0, clients_per_round = 3.0 }'
    poisson = 'sampling={ name = "poisson", rate = 0.5 }'
    alone = 'clock={ devices = { name = "lognormal", steps = 0.01 } }'
    assert build(config(private, poisson, alone))
    with pytest.raises(ConfigError, match="sampl"):
        build(config(private, poisson, "clock.deadline=2000.0"))


@pytest.mark.deep
def test_oort_knows_how_long_clients_take(config):
    oort = 'sampling={ name = "oort", clients = 2 }'
    built = build(config(oort))
    algorithm, data, params, sampler = built.args
    devices = fl.clock.lognormal(data.population, steps=0.01, sigma=1.0, download=1e3, upload=500.0, seed=3)
    durations = durations_of(algorithm, np.asarray(data.size), params, devices)
    by_hand = fl.sampling.oort(built.keywords["loss_fn"], clients=2, durations=durations)
    samplers = sampler, fl.clock.timed(by_hand, devices, availability=fl.availability.day_night(spread=0.3))
    kwargs = {"rounds": 4, "key": jax.random.key(0)}
    run = jax.jit(lambda data, params: [fl.simulate(algorithm, data, params, each, **kwargs)[1] for each in samplers])
    jax.tree.map(np.testing.assert_array_equal, *run(data, params))


def test_files_of_a_clock_start_at_the_configuration_and_are_kept_with_their_whole_path(config, tmp_path):
    (tmp_path / "phones.csv").write_text("client,steps,download,upload\n" + "".join(f"{k},1,inf,inf\n" for k in range(6)))
    (tmp_path / "there.csv").write_text("client,from,to\n" + "".join(f"{k},0,1e9\n" for k in range(6)))
    clock = """[clock]\ndevices = { name = "from_csv", path = "phones.csv" }\navailability = { name = "trace", source = "there.csv" }\n"""
    kept = build(config(more=clock)).keywords["config"]["clock"]
    assert (kept["devices"]["path"], kept["availability"]["source"]) == (str(tmp_path / "phones.csv"), str(tmp_path / "there.csv"))
