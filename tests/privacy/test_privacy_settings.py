"""[privacy] in a configuration, the command line, summary and report of a private run, and what is refused before it starts."""

import json

import jax
import jax.numpy as jnp
import optax
import pytest
from problems import softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite import cli, privacy
from fedjax_lite.build import build
from fedjax_lite.config import load
from fedjax_lite.privacy.spent import check_private
from fedjax_lite.report.page import report
from fedjax_lite.study.configured import configured

CONFIG = """
name = "private"
seed = 0
[data]
name = "digits"
partition = { name = "iid", clients = 60 }
[model]
name = "mlp"
hidden = []
[client]
optimizer = { name = "sgd", learning_rate = 0.1 }
batch_size = "all"
epochs = 1
[sampling]
name = "poisson"
rate = 0.2
[aggregator]
name = "dp_mean"
clip = 0.3
noise_multiplier = "auto"
clients_per_round = 12
[privacy]
target_epsilon = 2.0
delta = 1e-3
[server]
optimizer = { name = "sgd", learning_rate = 1.0 }
[run]
rounds = 6
evaluate_every = 3
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "private.toml"
    path.write_text(CONFIG)
    return lambda *changes: load(path, changes)


def shell(capsys, *words):
    status = cli.main(words)
    return (status, *capsys.readouterr())


def test_auto_is_the_least_noise_for_the_target(config, tmp_path, capsys):
    status, out, _ = shell(capsys, "privacy", str(tmp_path / "private.toml"))
    assert status == 0 and "one client added or removed" in out and "delta 0.001" in out
    z = float(out.split()[2].strip(","))
    assert float(out.split()[-1]) == pytest.approx(2.0, rel=1e-3)
    slots = privacy.account(fl.aggregators.dp_mean(0.3, z, 12).privacy, fl.sampling.poisson(0.2), 60, 6, 1e-3)
    assert slots.pld == pytest.approx(2.0, rel=1e-3) and slots.pld <= 2.0
    assert privacy.calibrate(2.0, 0.2, 6, 1e-3) == pytest.approx(z, rel=2e-3)  # the limit of slots asks for hardly more


def test_a_private_run_says_what_it_gave_away(config, tmp_path, capsys):
    status, out, err = shell(capsys, "run", str(tmp_path / "private.toml"), "--out", str(tmp_path / "run"), "--quiet")
    assert status == 0, err
    told = json.loads((tmp_path / "run" / "summary.json").read_text())["privacy"]
    assert told["rounds"] == [1, 2, 4, 5, 6] and told["delta"] == 1e-3 and told["relation"] == "one client added or removed"
    assert told["epsilon_pld"][-1] == pytest.approx(2.0, rel=1e-3) and told["epsilon_rdp"][-1] > told["epsilon_pld"][-1]
    assert sorted(told["epsilon_pld"]) == told["epsilon_pld"]
    shown = {name for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines() for name in json.loads(line)}
    assert set(told["outside"]) == shown - {"round", "update_norm", "clip_norm"}  # its test examples are the clients' too
    assert {"loss", "clipped", "noise_to_signal", "clients", "left_out", "test_accuracy", "test_clients"} <= set(told["outside"])
    page = (tmp_path / "run" / "report.html").read_text()
    for text in (
        "<h2>Privacy</h2>",
        "epsilon by RDP",
        "epsilon by PLD",
        "Outside the guarantee",
        "noise to signal",
        "clip norm",
        "clipped",
    ):
        assert text in page
    for name in ("loss", "clipped", "noise to signal"):
        assert f"<th>{name} \N{DAGGER}</th>" in page or f"<td>{name} \N{DAGGER}</td>" in page
    assert "<td>test accuracy \N{DAGGER}</td>" in page and "held-out examples \N{DAGGER}" in page
    assert "update norm \N{DAGGER}" not in page and "<figcaption>clients \N{DAGGER}" in page and "local training \N{DAGGER}" in page
    written = (tmp_path / "run" / "config.toml").read_text()
    assert f"noise_multiplier = {told['noise_multiplier']}" in written  # a number, from which the run can be repeated
    status, _, err = shell(capsys, "run", str(tmp_path / "run" / "config.toml"), "--out", str(tmp_path / "again"), "--quiet")
    assert status == 0, err
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("run", "again")]
    assert lines[0] == lines[1]


def test_each_budget_of_a_grid_is_told(config, tmp_path, capsys):
    path, grid = str(tmp_path / "private.toml"), ("--set", "grid={ privacy.target_epsilon = [5.0, 2.0], seeds = 2 }")
    cyclic = ("--set", CYCLIC, "--set", FTRL)
    status, out, err = shell(capsys, "privacy", path, *grid, *cyclic)
    assert status == 0, err
    told = [paragraph.split()[-1] for paragraph in out.split("noise multiplier")[1:]]
    assert [float(epsilon) for epsilon in told] == pytest.approx([5.0, 2.0], rel=1e-3)
    assert shell(capsys, "privacy", path, "--set", "grid.aggregator.clip=[0.1]")[0] == 2  # one of several mechanisms


def test_a_study_over_epsilons_is_one_program(config):
    found = configured(config("grid.privacy.target_epsilon=[2.0, 1.0]", "grid.seeds=2"))(progress=False)
    assert found.programs == 1 and found.axes[0].names == ("privacy.target_epsilon",)
    single = build(config("privacy.target_epsilon=2.0"))(progress=False)
    assert found.results["test_loss"][0, 0, -1] == pytest.approx(single.history[-1]["test_loss"], rel=1e-5)


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
        configured(config(sampling, "aggregator.noise_multiplier=1.0", "grid.aggregator.clip=[0.1]"))(progress=False)


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
        ([CYCLIC, DDGAUSS.replace("bits = 20", "block = 6")], "aggregator.block: padded: block must be a power of two.*, got 6"),
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
            configured(config(CYCLIC, FTRL, "grid.privacy.target_epsilon=[2.0]", f"grid.{grid}"))


def test_a_run_without_accountant_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("fedjax_lite.privacy.spent.find_spec", lambda name: None)
    algorithm = fl.federate(
        fl.sgd_work(softmax_loss, optax.sgd(0.1)), fl.aggregators.dp_mean(1.0, 1.0, 4.0), fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(4), population=7,
    )  # fmt: skip
    options = {"rounds": 2, "key": jax.random.key(0), "progress": False}
    fl.run(algorithm, softmax_data(), softmax_params(), fl.sampling.poisson(0.5), out=tmp_path / "run", **options)
    told = json.loads((tmp_path / "run" / "summary.json").read_text())["privacy"]
    assert "pip install" in told["note"] and "loss" in told["outside"] and "pip install" in (tmp_path / "run" / "report.html").read_text()
    with pytest.raises(ValueError, match="no accountant covers this sampler"):
        fl.run(algorithm, softmax_data(), softmax_params(), fl.sampling.weighted(3), **options)


def test_without_privacy_nothing_is_said(tmp_path):
    page = report("plain", {"status": "finished", "rounds": 1, "seconds": 1.0, "final": {"round": 1, "loss": 1.0}}, [])
    assert "Privacy" not in page


def test_examples_can_be_private_in_a_configuration(config):
    """With a clip norm that cuts nothing and no noise it is plain training, for a batch that is always full."""
    changes = ['aggregator={ name = "mean" }', "privacy={}", "client.batch_size=5"]
    plain = build(config(*changes))(progress=False)
    private = build(config(*changes, "client.record={ clip = 1e6, noise_multiplier = 0.0, microbatch = 2 }"))(progress=False)
    noisy = build(config(*changes, "client.record={ clip = 1.0, noise_multiplier = 1.0 }"))(progress=False)
    assert private.history[-1]["test_loss"] == pytest.approx(plain.history[-1]["test_loss"], rel=1e-5)
    assert abs(noisy.history[-1]["test_loss"] - plain.history[-1]["test_loss"]) > 1e-3
    for table, message in [
        ("3", "client.record: must be a table"),
        ("{ clip = 0.0, noise_multiplier = 1.0 }", "client.record.clip.* must be positive"),
        ("{ clip = 1.0 }", "give noise_multiplier"),
    ]:
        with pytest.raises(ValueError, match=message):
            build(config(*changes, f"client.record={table}"))
    with pytest.raises(ValueError, match="client.record: divides by the size of a batch.*got 'all'"):
        build(config("client.record={ clip = 1.0, noise_multiplier = 1.0 }", 'client.batch_size="all"'))
