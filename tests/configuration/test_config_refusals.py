"""What a configuration is refused for: the line, the value and the remedy in one message."""

import re

import pytest
from tiny import TINY, edited

from fedjax_lite.configuration.build import build
from fedjax_lite.configuration.call import refusing
from fedjax_lite.configuration.config import load
from fedjax_lite.configuration.table import Config, ConfigError


@pytest.fixture
def made(tmp_path):
    """Builds a run from the text, with pairs of its text replaced, and overrides."""
    return lambda *replace, overrides=(): build(edited(tmp_path, TINY, *replace, overrides=overrides))


def refused(made, message, *replace, overrides=()):
    with pytest.raises(ConfigError, match=message) as caught:
        made(*replace, overrides=overrides)
    assert "\n" not in str(caught.value)


# Every edit makes one mistake; every message names the place, the value and a remedy.
MISTAKES = {
    "section": (("[server]", "[sever]"), r"tiny.toml:22: sever: unknown section; did you mean 'server'\?; there are name, seed"),
    "no section": (("[aggregator]\nname = ", "[engine]\nname = "), r"tiny.toml: aggregator: this section is missing"),
    "list for table": (("[client]", "[[client]]"), r"tiny.toml:14: client: must be a table, got \["),
    "value for table": (('[server]\noptimizer = { name = "sgd", learning_rate = 1.0 }', ""), "server: this section is missing"),
    "not TOML": (("[run]", "[run"), r"tiny.toml is not valid TOML: .*line 24"),
    "date": (('"tiny"', "2020-01-01"), r"tiny.toml:1: name: must be text, a number, .* got 2020-01-01"),
    "nan": (("rounds = 4", "rounds = nan"), "tiny.toml:25: run.rounds: is nan: give a number"),
    "huge": (("rounds = 4", "rounds = 99999999999999999999"), "tiny.toml:25: run.rounds: is 99999999999999999999, more than 64 bits hold"),
    "huge batch": (("batch_size = 2", "batch_size = 5000000000"), "client.batch_size: .*below 2.31"),
    "huge model": (("hidden = [3]", "hidden = [99999999999]"), r"model: the leaf 0/Dense_0/bias would have 99,999,999,999 numbers, .*2.31"),
    "large model": (
        ("hidden = [3]", "hidden = [400000000, 5]"),
        r"model: its parameters take [\d.]+ GB, 3 times in training, and the device",
    ),
    "turned name": (('"tiny"', '"a\\u202eb"'), r"tiny.toml:1: name: must be 1 to 100 letters, .* got 'a\\u202eb'"),
    "long name": (('"tiny"', f'"{"x" * 10**6}"'), r"tiny.toml:1: name: must be 1 to 100 letters, .* got 'x{100,200}\.\.\.$"),
    "name": (('"tiny"', '"a/b"'), r"tiny.toml:1: name: must be 1 to 100 letters, .* that can name a folder, got 'a/b'"),
    "seed": (("seed = 3", "seed = true"), r"tiny.toml:2: seed: must be a whole number from 0 to 2\^32 - 1, got True"),
    "negative seed": (("seed = 3", "seed = -1"), r"seed: must be a whole number .* got -1"),
    "data name": (
        ('"table"', '"tabel"'),
        r"tiny.toml:4: data.name: unknown data 'tabel'; did you mean 'table'\?; see fedjax-lite list data",
    ),
    "data key": (('name = "table"', 'name = "table"\npath = "x"'), r"tiny.toml:5: data.path: unknown key; there are clients"),
    "no name": (('name = "table"', ""), r"tiny.toml:3: data: give name: one of .*digits, .*load, "),
    "data rejects": (
        ("[[0.5, 0.5]]", "[[0.5, 0.5, 0.5]]"),
        r"tiny.toml:3: data: an example.s x has the shape \[3\] at client 1 .*make them equal",
    ),
    "negative label": (("y = [2]", "y = [-1]"), r"tiny.toml:3: data: labels out of range: label -1 of client 1 of the data is no class"),
    "missing file": (
        ('name = "table"\n[[data.clients]]', 'name = "leaf"\npath = "nowhere"\n[[extra]]'),
        r"tiny.toml:6: extra: unknown section",
    ),
    "labels beyond classes": (
        ("hidden = [3]", "hidden = [3]\nclasses = 2"),
        r"tiny.toml:14: model.classes: labels out of range: label 2 of client 1 of the data is none of classes=2",
    ),
    "hidden of text": (("hidden = [3]", 'hidden = ["3"]'), r"tiny.toml:13: model.hidden: must be a list of whole numbers, got \['3'\]"),
    "hidden nested": (("hidden = [3]", "hidden = [[3]]"), r"tiny.toml:13: model.hidden: must be a list of whole numbers"),
    "hidden no list": (("hidden = [3]", "hidden = 3"), r"tiny.toml:13: model.hidden: must be a list of whole numbers, got 3"),
    "hidden zero": (("hidden = [3]", "hidden = [0]"), r"tiny.toml:13: model.hidden: mlp: hidden must be a whole number .* got 0"),
    "loss": (("hidden = [3]", 'loss = "hinge"'), r"""tiny.toml:13: model.loss: .*one of 'softmax', 'squared', .*, got 'hinge'"""),
    "no optimizer": (('optimizer = { name = "sgd", learning_rate = 0.1 }\n', ""), r"tiny.toml:14: client: give optimizer, such as"),
    "optimizer": (
        ('"sgd", learning_rate = 0.1', '"sdg"'),
        r"tiny.toml:15: client.optimizer.name: unknown optimizer 'sdg'; did you mean 'sgd'",
    ),
    "no rate": (('"sgd", learning_rate = 0.1', '"sgd"'), r"tiny.toml:15: client.optimizer: give learning_rate"),
    "rate of text": (("rate = 0.1", 'rate = "0.1"'), r"tiny.toml:15: client.optimizer.learning_rate: must be a number, got '0.1'"),
    "rate true": (("rate = 0.1", "rate = true"), r"client.optimizer.learning_rate: must be a number, got True"),
    "decay true": (("batch_size = 2", "batch_size = 2\nepoch_decay = true"), r"client.epoch_decay: must be a number, got True"),
    "rate list": (("rate = 0.1", "rate = [0.1]"), r"client.optimizer.learning_rate: must be a number, got \[0.1\]"),
    "rate negative": (("rate = 0.1", "rate = -0.1"), r"client.optimizer.learning_rate: must be finite and not negative, got -0.1"),
    "rate infinite": (("rate = 0.1", "rate = inf"), r"client.optimizer.learning_rate: must be finite and not negative, got inf"),
    "rate beside": (
        ("batch_size = 2", "batch_size = 2\nlearning_rate = 1"),
        r"tiny.toml:17: client.learning_rate: unknown key; .* of the optimizer",
    ),
    "optimizer number": (('{ name = "sgd", learning_rate = 0.1 }', "3"), r"tiny.toml:15: client.optimizer: must be a table with a name"),
    "optimizer none": (('{ name = "sgd", learning_rate = 0.1 }', "[]"), r"tiny.toml:15: client.optimizer: is an empty list"),
    "client key": (("batch_size = 2", "batch_sise = 2"), r"tiny.toml:16: client.batch_sise: unknown key; did you mean 'batch_size'\?"),
    "no batch": (("batch_size = 2\n", ""), r"tiny.toml:14: client: give batch_size"),
    "batch zero": (("batch_size = 2", "batch_size = 0"), r'client.batch_size: must be a whole number of at least 1 or "all", got 0'),
    "batch true": (("batch_size = 2", "batch_size = true"), r"client.batch_size: must be a whole number"),
    "batch float": (("batch_size = 2", "batch_size = 2.0"), r"client.batch_size: must be a whole number of at least 1 or \"all\", got 2.0"),
    "batch text": (("batch_size = 2", 'batch_size = "2"'), r"client.batch_size: must be a whole number"),
    "epochs zero": (
        ("batch_size = 2", "batch_size = 2\nepochs = 0"),
        r"tiny.toml:17: client.epochs: must be a whole number of at least 1, a part such as 0.5, or a",
    ),
    "epochs below zero": (
        ("batch_size = 2", "batch_size = 2\nepochs = -0.5"),
        r"tiny.toml:17: client.epochs: Batches: epochs must be a number of at least 0.0001",
    ),
    "half a step": (("batch_size = 2", "batch_size = 2\nsteps = 0.5"), r"tiny.toml:17: client.steps: must be a whole number"),
    "epochs and steps": (
        ("batch_size = 2", "batch_size = 2\nepochs = 1\nsteps = 2"),
        r"tiny.toml:18: client.steps: give epochs or steps, not both",
    ),
    "uplink": (
        ("batch_size = 2", 'batch_size = 2\nuplink = "clipp"'),
        r"tiny.toml:17: client.uplink.name: unknown uplink 'clipp'; did you mean 'clip'",
    ),
    "uplink without its inner": (
        ("batch_size = 2", 'batch_size = 2\nuplink = { name = "error_feedback" }'),
        r"tiny.toml:17: client.uplink: give inner",
    ),
    "inner uplink": (
        ("batch_size = 2", 'batch_size = 2\nuplink = ["zero_nans", { name = "error_feedback", inner = { name = "topk", share = 0.1 } }]'),
        r"tiny.toml:17: client.uplink\[1\].inner.name: unknown uplink 'topk'; did you mean 'top_k'",
    ),
    "share of an inner uplink": (
        ("batch_size = 2", 'batch_size = 2\nuplink = { name = "error_feedback", inner = { name = "top_k", share = 2 } }'),
        r"tiny.toml:17: client.uplink.inner(.share)?: top_k: share must be in",
    ),
    "second uplink": (
        ("[sampling]", '[[client.uplink]]\nname = "zero_nans"\n[[client.uplink]]\nname = "clip"\nmax_delta = "1"\n[sampling]'),
        r"tiny.toml:21: client.uplink\[1\].max_delta: must be a number, got '1'",
    ),
    "clock": (
        ("0.1 }", '{ name = "linear_schedule", init_value = 1, end_value = 0, transition_steps = 9, clock = "rounds" } }'),
        r"tiny.toml:15: client.optimizer.learning_rate.clock: unknown clock 'rounds'; did you mean 'round'\?; .* round, step, client_step",
    ),
    "server clock": (
        ("1.0 }", '{ name = "constant_schedule", value = 1, clock = "step" } }'),
        r"tiny.toml:23: server.optimizer.learning_rate.clock: unknown clock 'step'; here there are round",
    ),
    "epochs clock": (("batch_size = 2", 'batch_size = 2\nepochs = { clock = "step" }'), r"client.epochs.clock: unknown clock 'step'"),
    "schedule": (
        ("0.1 }", '{ name = "liner_schedule" } }'),
        r"learning_rate.name: unknown schedule 'liner_schedule'; did you mean 'linear_schedule'",
    ),
    "schedule key": (("0.1 }", '{ name = "constant_schedule" } }'), r"tiny.toml:15: client.optimizer.learning_rate: give value"),
    "cohort": (
        ("clients = 2", "clients = 3"),
        r"tiny.toml:19: sampling.clients: uniform: clients=3 is more than the population of 2: lower it",
    ),
    "cohort zero": (("clients = 2", "clients = 0"), r"tiny.toml:19: sampling.clients: uniform: clients must be .*at least 1, got 0"),
    "cohort float": (("clients = 2", "clients = 2.5"), r"sampling.clients: must be a whole number, got 2.5"),
    "sampler": (
        ('"uniform"\nclients = 2', '"dropout"\nrate = 2\n[sampling.sampler]\nname = "everyone"'),
        r"tiny.toml:19: sampling.rate: dropout: rate must be in \[0, 1\), got 2",
    ),
    "no sampler": (('"uniform"\nclients = 2', '"dropout"\nrate = 0.5'), r"tiny.toml:17: sampling: give sampler, such as \{ name ="),
    "inner sampler": (
        ('"uniform"\nclients = 2', '"dropout"\nrate = 0.5\n[sampling.sampler]\nname = "uniform"\nclients = 9'),
        r"tiny.toml:22: sampling.sampler.clients: .*clients=9 is more than the population",
    ),
    "aggregator": (('"weighted_mean"', '"from_sum"'), r"tiny.toml:21: aggregator.name: unknown aggregator 'from_sum'"),
    "aggregator key": (('"weighted_mean"', '"trimmed_mean"'), r"tiny.toml:20: aggregator: give num_byzantine"),
    "aggregator value": (('"weighted_mean"', '"trimmed_mean"\nnum_byzantine = -1'), r"tiny.toml:22: aggregator.num_byzantine: .* got -1"),
    "aggregator nested": (('"weighted_mean"', "[1]"), r"tiny.toml:21: aggregator.name: unknown aggregator \[1\]"),
    "lanes": (
        ("[run]", '[engine]\nname = "packed"\nlanes = 0\n[run]'),
        r'tiny.toml:26: engine.lanes: lanes must be at least 1, or "auto", got 0',
    ),
    "adaptive": (("[run]", "adaptive_rate = 3\n[run]"), r"tiny.toml:24: server.adaptive_rate: must be a table"),
    "adaptive key": (("[run]", "adaptive_rate = { powr = 1.0 }\n[run]"), r"server.adaptive_rate.powr: unknown key; did you mean 'power'"),
    "adaptive needs norms": (
        ("[run]", "adaptive_rate = {}\n[run]"),
        r"tiny.toml:24: server.adaptive_rate: adaptive_rate needs the metric gradient_norm",
    ),
    "no rounds": (("rounds = 4\n", ""), r"tiny.toml:24: run: give rounds"),
    "rounds zero": (("rounds = 4", "rounds = 0"), r"tiny.toml:25: run.rounds: rounds must be a whole number of at least 1, got 0"),
    "rounds true": (("rounds = 4", "rounds = true"), r"tiny.toml:25: run.rounds: rounds must be a whole number of at least 1, got True"),
    "run key": (
        ("rounds = 4", "rounds = 4\nevaluate_evry = 2"),
        r"tiny.toml:26: run.evaluate_evry: unknown key; did you mean 'evaluate_every'",
    ),
    "checkpoints": (
        ("rounds = 4", "rounds = 4\ncheckpoint_every = 3"),
        r"tiny.toml:26: run.checkpoint_every: .*multiple of evaluate_every=2",
    ),
    "converge": (("rounds = 4", "rounds = 4\nconverge = 3"), r"tiny.toml:26: run.converge: must be a table"),
    "patience": (
        ("rounds = 4", "rounds = 4\nconverge = { patience = 0 }"),
        r"tiny.toml:26: run.converge: converge needs a whole number patience >= 1",
    ),
    "metric": (
        ("rounds = 4", "rounds = 4\nconverge = { metric = 'test_loss' }"),
        r"tiny.toml:26: run.converge: converge: no metric 'test_loss'; there are .*train_loss",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(made, name):
    replace, message = MISTAKES[name]
    refused(made, message, replace)


def test_mistakes_in_overrides_name_the_override(made):
    refused(made, r"^--set client.epochs=0: client.epochs: must be", overrides=["client.epochs=0"])
    refused(made, r"^--set sevrer.x=1: sevrer: unknown section; did you mean 'server'", overrides=["sevrer.x=1"])
    refused(made, r"^--set client=5: client: must be a table, got 5", overrides=["client=5"])
    refused(made, r"^--set model.hidden=\[1: \[1 is not valid TOML", overrides=["model.hidden=[1"])
    refused(made, r"^--set run.rounds: write it as section.key=value", overrides=["run.rounds"])
    refused(made, r"^--set run..rounds=1: write it as", overrides=["run..rounds=1"])
    where = "^--set model.hidden.first=1: model.hidden is a list of 1: give a number from 0 to 0, not first"
    refused(made, where, overrides=["model.hidden.first=1"])
    refused(made, "^--set run.rounds.x=1: run.rounds is 4, not a table: set the whole of it", overrides=["run.rounds.x=1"])
    refused(made, "^--set model.hidden=.*: its value is nested too deeply", overrides=[f"model.hidden={'[' * 90}{']' * 90}"])
    refused(made, r"tiny.toml:15: client.optimizer: give learning_rate", (", learning_rate = 0.1", ""), overrides=["client.epochs=2"])


@pytest.mark.parametrize("text", ["x = " + "[" * 5000 + "]" * 5000, "x = " + "{x=" * 5000 + "1" + "}" * 5000, "a." * 5000 + "b = 1"])
def test_what_is_nested_too_deeply_is_one_line(text, tmp_path):
    (tmp_path / "deep.toml").write_text(text)
    with pytest.raises(ConfigError, match="deep.toml is not valid TOML: it is nested too deeply$"):
        load(tmp_path / "deep.toml")
    with pytest.raises(ConfigError, match="^cannot read x{150,200}[.]{3}: File name too long$"):
        load("x" * 5000)


def test_whatever_is_raised_names_the_nearest_place():
    def place(path, error):
        with pytest.raises(ConfigError) as caught, refusing(Config({"a": {"rate": 1, "clients": 2, "b": {"size": 3}}}, "", "x").at(*path)):
            raise error
        return str(caught.value)

    assert place(["a"], ValueError("no rate for 2 clients")) == "x: a.rate: no rate for 2 clients"
    assert place(["a"], ValueError("clients and a rate")) == "x: a.clients: clients and a rate"  # what it begins with comes first
    assert place(["a"], OSError("the size\nand more")) == "x: a.b.size: the size"
    assert place(["a"], TypeError("strange")) == "x: a: TypeError: strange"
    assert place([], ValueError("for some clients")) == "x: for some clients"  # so far up, a word in the middle says little
    assert place([], ValueError("size must be")) == "x: a.b.size: size must be"


def test_data_that_is_not_there(made, tmp_path):
    with_data = lambda name: ('name = "table"', name)  # noqa: E731
    clients = re.search(r"\[\[data.clients\]\].*?(?=\[model\])", TINY, re.DOTALL)[0]
    refused(made, r"tiny.toml:5: data.path: path='.*nowhere' is not a folder", (clients, ""), with_data('name = "leaf"\npath = "nowhere"'))
    refused(
        made, r"tiny.toml:3: data: give partition, such as \{ name = \"iid\", clients = 10 \}", (clients, ""), with_data('name = "digits"')
    )
    partition = 'name = "digits"\npartition = { name = "iid", clients = 9999 }'
    refused(made, r"tiny.toml:5: data.partition.clients: .*clients=9999 .*use fewer clients", (clients, ""), with_data(partition))
    refused(made, r"data.partition.clients: must be a whole number, got '9'", (clients, ""), with_data(partition.replace("9999", '"9"')))
    with pytest.raises(ConfigError, match="cannot read .*: No such file"):
        load(tmp_path / "absent.toml")


def test_an_inner_aggregator_shares_the_num_byzantine_of_the_outer(made):
    """Of two messages and f = 1 each rule needs more than there are, and says so with the f that it was given."""
    for inner, message in (
        ('"trimmed_mean"', r"nnm: num_byzantine=1 needs"),
        ('{ name = "krum", num_byzantine = 3 }', r"nnm: num_byzantine=1 needs"),
        ('{ name = "krumm" }', r"tiny.toml:23: aggregator.inner.name: unknown aggregator 'krumm'; did you mean 'krum'"),
        ('{ name = "arc" }', r"tiny.toml:23: aggregator.inner: give inner"),
        ("3", r"tiny.toml:23: aggregator.inner: must be a table with a name"),
    ):
        refused(made, message, ('"weighted_mean"', f'"nnm"\nnum_byzantine = 1\ninner = {inner}'))
    refused(made, r"aggregator.inner: give num_byzantine", ('"weighted_mean"', '"bucketing"\nsize = 1\ninner = { name = "krum" }'))
