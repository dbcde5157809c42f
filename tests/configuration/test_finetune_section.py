"""Fine-tuning and clients that never take part, from a configuration: run, plan, privacy and study."""

import json

import numpy as np
import pytest
from tiny import edited

import fedjax_lite as fl
from fedjax_lite.configuration.build import build
from fedjax_lite.configuration.grid import grid_of
from fedjax_lite.configuration.study import study_of
from fedjax_lite.configuration.table import ConfigError
from fedjax_lite.privacy.budget import budget_table

TEXT = """\
name = "tuned"
seed = 3
[data]
name = "digits"
partition = { name = "shards", clients = 12, shards_per_client = 2 }
test = 0.25
hold_out_clients = 0.25
[model]
name = "mlp"
hidden = []
[algorithm]
name = "fedavg"
[client]
optimizer = { name = "sgd", learning_rate = 0.1 }
batch_size = 20
shuffle = false
[sampling]
name = "uniform"
clients = 3
[engine]
name = "sequential"
[run]
rounds = 4
evaluate_every = 2
finetune = { epochs = 2 }
"""


ADAM = '{ name = "adam", learning_rate = 0.1 }'


@pytest.fixture
def config(tmp_path):
    return lambda *replace, overrides=(): edited(tmp_path, TEXT, *replace, overrides=overrides)


@pytest.mark.deep
def test_a_run_and_a_study_say_the_same_of_fine_tuning_and_new_clients(config, tmp_path):
    here = config(overrides=["grid.seed=[3]", 'grid.algorithm=[{name = "fedavg"}]'])
    result = build(here)(out=tmp_path / "run", progress=False)
    assert result.clients["new"].tolist() == [0] * 9 + [1] * 3 and result.state.round == 4
    found = study_of(here)(together=1, progress=False).results
    for name, value in result.further.items():
        np.testing.assert_allclose(found[name].item(), value, rtol=1e-5)
    told = json.loads((tmp_path / "run" / "summary.json").read_text())
    for part, whose in (("other_models", "finetuned_"), ("new_clients", "new_finetuned_")):
        spread = told[part]["test_clients"][f"{whose}accuracy"]
        np.testing.assert_allclose(found[f"test_{whose}client_accuracy"].item(), spread["mean"], rtol=1e-5)
        np.testing.assert_allclose(found[f"test_{whose}worst_accuracy"].item(), spread["worst_decile"], rtol=1e-5)


@pytest.mark.deep
def test_its_own_optimizer_batches_and_leaves_or_those_of_the_clients(config):
    bound = build(config()).keywords
    assert bound["finetune"].batches == fl.Batches(20, epochs=2) and bound["finetune"].leaves == "all"
    assert bound["new_clients"].population == 3 and bound["new_clients"].test.population == 3
    own = config(
        (
            "finetune = { epochs = 2 }",
            'finetune = { steps = 3, batch_size = "all", optimizer = { name = "adam", learning_rate = 0.1 }, leaves = ".*bias" }',
        )
    )
    how = build(own).keywords["finetune"]
    assert how.batches == fl.Batches(None, steps=3) and how.leaves == ".*bias"
    assert "mu" in str(how.optimizer.init(np.zeros(2, np.float32)))
    assert build(config(("finetune = { epochs = 2 }", ""))).keywords["finetune"] is None


DECAYS = '{ name = "exponential_decay", init_value = 0.1, transition_steps = 1, decay_rate = 0.5 }'
MISTAKES = {
    "key": (("epochs = 2 }", "epoch = 2 }"), r"run.finetune.epoch: unknown key; did you mean 'epochs'"),
    "no table": (("{ epochs = 2 }", "2"), r"run.finetune"),
    "epochs": (("epochs = 2 }", "epochs = 0 }"), r"run.finetune.epochs: must be a whole number of at least 1"),
    "both": (("epochs = 2 }", "epochs = 2, steps = 1 }"), r"run.finetune.steps: give epochs or steps, not both"),
    "leaves": (("epochs = 2 }", 'leaves = "neck" }'), r"run.finetune.leaves: .*'neck' chooses no leaf, .* Dense_0/bias, Dense_0/kernel"),
    "rate": (
        ("epochs = 2 }", f'optimizer = {{ name = "sgd", learning_rate = {DECAYS} }} }}'),
        r"run.finetune: there is one round of fine-tuning, so no rate is scheduled",
    ),
    "central": (("hold_out_clients = 0.25", "central_test = 0.2"), r"finetune: each client is evaluated on examples of its own"),
    "new and central": (("hold_out_clients", "central_test = 0.2\nhold_out_clients"), r"each client is evaluated on|hold out examples"),
    "all clients": (("hold_out_clients = 0.25", "hold_out_clients = 12"), r"data.hold_out_clients: .*clients=12 is 12 of 12 clients"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_name_the_key(config, name):
    pair, message = MISTAKES[name]
    with pytest.raises(ConfigError, match=message):
        build(config(pair))


@pytest.mark.parametrize("name", ["central", "new and central"])
def test_a_study_refuses_what_a_run_does(config, name):
    """It would leave fine-tuning out, or evaluate new clients on the examples that they were fine-tuned on."""
    pair, message = MISTAKES[name]
    with pytest.raises(ValueError, match=message):
        study_of(config(pair, ("[run]", "[grid]\nclient.epochs = [1, 2]\nseeds = 1\n[run]")))(progress=False)


@pytest.mark.deep
def test_plan_and_privacy_take_the_same_configuration(config):
    rule = 'name = "dp_mean"\nclip = 1.0\nnoise_multiplier = 1.0\nclients_per_round = 3'
    private = f'name = "fedavg"\n[aggregator]\n{rule}\n[privacy]\ndelta = 1e-3'
    assert "epsilon" in str(build(config(('name = "fedavg"', private)), budget_table)())
    assert build(config(), fl.plan)().rounds == 4


def test_values_that_change_together(config):
    rows = '[[{ name = "fedavg" }, 2], [{ name = "fedper", personal = "Dense_0/bias" }, 3]]'
    grid = grid_of(config(("[run]", f'[grid]\n"algorithm, client.epochs" = {rows}\nseeds = 1\n[run]')))
    (axis,) = grid.axes
    assert axis.names == ("algorithm", "client.epochs") and axis.rows == (("fedavg", 2), ("fedper", 3))
    assert grid.choices == [[
        {"algorithm": {"name": "fedavg"}, "client.epochs": 2},
        {"algorithm": {"name": "fedper", "personal": "Dense_0/bias"}, "client.epochs": 3},
    ]]  # fmt: skip
    for wrong, message in (
        ('"algorithm, client.epochs" = [[{ name = "fedavg" }]]', "must be a list of rows, each with a value for algorithm, client.epochs"),
        ('"algorithm, client.epochs" = [1, 2]', "must be a list of rows"),
        ('"client.epochs, client.epoch," = [[1, 2, 3]]', "cannot vary|unknown section"),
        ('"client.epochs, client.batch_size" = [[1, 2], [1, 2]]', r"has \(1, 2\) twice"),
        ('"client.epochs, client.batch_size" = [[1, 2]]\nclient.epochs = [3]', "has client.epochs on two axes"),
    ):
        with pytest.raises(ConfigError, match=message):
            grid_of(config(("[run]", f"[grid]\n{wrong}\n[run]")))
