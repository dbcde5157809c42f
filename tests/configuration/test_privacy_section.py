"""[privacy] in a configuration: the noise for an epsilon, what the command line tells of it, and what is refused before a run starts."""

import jax.numpy as jnp
import pytest
from tiny import PRIVATE, replaced, written

import fedjax_lite as fl
from fedjax_lite import cli, privacy
from fedjax_lite.configuration.build import build
from fedjax_lite.configuration.study import study_of
from fedjax_lite.privacy.budget import check_private

pytestmark = pytest.mark.usefixtures("coarse_accounting")


@pytest.fixture
def config(tmp_path):
    return written(tmp_path / "private.toml", PRIVATE.replace('"padded"', '"sequential"'))  # the program that is traced soonest


def shell(capsys, *words):
    status = cli.main(words)
    return (status, *capsys.readouterr())


def test_auto_is_the_least_noise_for_the_target(config, tmp_path, capsys):
    status, out, _ = shell(capsys, "privacy", str(tmp_path / "private.toml"))
    assert status == 0 and "one client added or removed" in out and "delta 0.001" in out
    z = build(config()).args[0].privacy.noise_multiplier
    assert float(out.split()[2].strip(",")) == pytest.approx(z, rel=1e-3)
    assert float(out.split()[-1]) == pytest.approx(2.0, rel=1e-3)
    slots = privacy.account(fl.aggregators.dp_mean(0.3, z, 12).privacy, fl.sampling.poisson(0.2), 60, 6, 1e-3)
    assert slots.pld == pytest.approx(2.0, rel=1e-3) and slots.pld <= 2.0
    assert privacy.calibrate(2.0, 0.2, 6, 1e-3) == pytest.approx(z, rel=2e-3)  # the limit of slots asks for hardly more


@pytest.mark.deep
def test_an_algorithm_by_name_has_the_budget_of_what_it_composes(config, tmp_path, capsys):
    _, expected, _ = shell(capsys, "privacy", str(tmp_path / "private.toml"))
    server = '[server]\noptimizer = { name = "sgd", learning_rate = 1.0 }\n'
    (tmp_path / "named.toml").write_text(replaced(PRIVATE, (server, '[algorithm]\nname = "fedavg"\n')))
    assert shell(capsys, "privacy", str(tmp_path / "named.toml"))[:2] == (0, expected)


@pytest.mark.deep
def test_each_budget_of_a_grid_is_told(config, tmp_path, capsys):
    path, grid = str(tmp_path / "private.toml"), ("--set", "grid={ privacy.target_epsilon = [5.0, 2.0], seeds = 2 }")
    cyclic = ("--set", CYCLIC, "--set", FTRL)
    status, out, err = shell(capsys, "privacy", path, *grid, *cyclic)
    assert status == 0, err
    told = [paragraph.split()[-1] for paragraph in out.split("noise multiplier")[1:]]
    assert [float(epsilon) for epsilon in told] == pytest.approx([5.0, 2.0], rel=1e-3)
    status, _, err = shell(capsys, "privacy", path, "--set", "grid.aggregator.clip=[0.1]")  # another mechanism than the one that is told
    assert status == 0 and "one run, of the values outside [grid]" in err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["privacy={ delta = 1e-3 }"], 'aggregator.noise_multiplier: "auto" solves for an epsilon: give target_epsilon under'),
        (["privacy.delta=0.0"], r"privacy.delta: delta must be between 0 and 1, got 0.0"),
        (["privacy.target_epsilon=-1.0"], "privacy.target_epsilon: target_epsilon must be positive and finite, got -1.0"),
        (["privacy.accountant=prv"], 'privacy.accountant: accountant must be "pld" or "rdp"'),
        (["privacy.epsilon=1.0"], "privacy.epsilon: unknown key"),
        (['aggregator={ name = "mean" }'], "privacy.target_epsilon: nothing here is private"),
        (
            [
                'sampling={ name = "cyclic", clients = 12 }',
                'aggregator={ name = "dp_ftrl", clip = 1.0, noise_multiplier = 1.0, clients_per_round = 12, rounds = 5 }',
            ],
            "rounds=5 of the aggregator are fewer than the 6 of the run",
        ),
        (["privacy=3"], "privacy: must be a table"),
        (
            ["sampling.name=uniform", 'sampling={ name = "uniform", clients = 12 }'],
            'accountant: "pld" has no bound for 12 of 60 clients at random.*take "rdp"',
        ),
        (['sampling={ name = "weighted", clients = 12 }'], "no accountant covers this sampler"),
        (['sampling={ name = "weighted", clients = 12 }', "aggregator.noise_multiplier=1.0"], "no accountant covers this sampler"),
        (["aggregator.noise_multiplier=0.0"], "aggregator.noise_multiplier: 0 keeps to no target_epsilon"),
        (['run.converge={ metric = "test_loss" }', "aggregator.noise_multiplier=1.0"], "test_loss is computed from clients' data"),
        (["sampling.capacity=13", "privacy.accountant=rdp"], '"rdp" has no bound for Poisson sampling.*take "pld"'),
        (["aggregator.noise_multiplier=-1.0"], "aggregator.noise_multiplier.* must be finite and not negative, got -1.0"),
        (["aggregator.clip=0.0"], "aggregator.clip.* must be positive and finite, got 0.0"),
        (['run.converge={ metric = "loss" }', "aggregator.noise_multiplier=1.0"], "loss is computed from clients' data without noise"),
        (
            ['client.uplink=[{ name = "error_feedback", inner = { name = "top_k", share = 0.1 } }]', "aggregator.noise_multiplier=1.0"],
            "the uplink can't keep",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_is_trained(config, changes, message):
    with pytest.raises(ValueError, match=message):
        build(config(*changes))


@pytest.mark.deep
def test_a_fixed_number_of_clients_is_solved_for_by_rdp(config):
    run = build(config('sampling={ name = "uniform", clients = 12 }', "privacy.accountant=rdp", "privacy.target_epsilon=20.0"))
    z = run.args[0].privacy.noise_multiplier
    assert privacy.account(run.args[0].privacy, fl.sampling.uniform(12), 60, 6, 1e-3).rdp == pytest.approx(20.0, rel=1e-4) and z > 0


CYCLIC = 'sampling={ name = "cyclic", clients = 12 }'
FTRL = 'aggregator={ name = "dp_ftrl", clip = 0.3, noise_multiplier = "auto", clients_per_round = 12 }'
DDGAUSS = 'aggregator={ name = "ddgauss", clip = 0.3, noise_multiplier = "auto", clients_per_round = 12, bits = 20 }'


@pytest.mark.parametrize(("aggregator", "accountant"), [(FTRL, "pld"), (FTRL, "rdp"), (DDGAUSS, "rdp")])
def test_auto_solves_for_every_private_aggregator(config, aggregator, accountant):
    run = build(config(CYCLIC, aggregator, f"privacy.accountant={accountant}", "privacy.target_epsilon=5.0"))
    mechanism = run.args[0].privacy
    found = getattr(privacy.account(mechanism, fl.sampling.cyclic(12), 60, 6, 1e-3), accountant)
    assert found == pytest.approx(5.0, rel=1e-4) and found <= 5.0
    if aggregator == FTRL:  # as many rounds as the run has: more are refused by its strategy
        assert mechanism.sensitivity(2, 5) > mechanism.sensitivity(1, 5)


def test_a_study_refuses_what_a_run_refuses(config):
    with pytest.raises(ValueError, match="no accountant covers this sampler"):
        sampling = 'sampling={ name = "weighted", clients = 12 }'
        study_of(config(sampling, "aggregator.noise_multiplier=1.0", "grid.aggregator.clip=[0.1]"))(progress=False)


def test_every_client_must_be_there_to_draw_its_noise():
    mechanism = fl.aggregators.ddgauss(1.0, 1.0, 4, dimension=32).privacy
    check_private(mechanism, fl.sampling.everyone(), jnp.array([2, 1, 2, 1]), 3)
    with pytest.raises(ValueError, match="data: 2 clients hold no examples.*their share of the noise is missing: drop them"):
        check_private(mechanism, fl.sampling.everyone(), jnp.array([2, 0, 2, 0]), 3)


def test_auto_says_what_cannot_be_solved(config):
    for changes, message in [
        ([CYCLIC, DDGAUSS], 'privacy.*: accountant: "pld" has no bound for 12 clients in turn with this noise: take "rdp"'),
        ([CYCLIC, DDGAUSS.replace("20", "6"), "privacy.accountant=rdp", "privacy.target_epsilon=0.01"], "is out of reach of any noise"),
        (['aggregator={ name = "mean", noise_multiplier = "auto" }'], "aggregator.noise_multiplier: unknown key"),
        ([CYCLIC, DDGAUSS.replace("bits = 20", "block = 6")], "aggregator.block: padded_size: block must be a power of two.*, got 6"),
    ]:
        with pytest.raises(ValueError, match=message):
            build(config(*changes))
    for grid, message in [
        ('sampling=[{ name = "everyone" }]', "and sampling varies"),
        ("aggregator.bands=[1, 2]", "and aggregator.bands varies"),
        ("privacy.delta=[1e-2, 1e-5]", "and privacy.delta varies"),
        ("data.partition.clients=[60, 70]", "and data.partition.clients varies"),
    ]:
        with pytest.raises(ValueError, match=message):
            study_of(config(CYCLIC, FTRL, "grid.privacy.target_epsilon=[2.0]", f"grid.{grid}"))
