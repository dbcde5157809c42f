"""The texts of small configurations, one plain and one private, and how tests change one."""

import jax

from fedjax_lite.configuration.build import parts
from fedjax_lite.configuration.config import load
from fedjax_lite.configuration.data import load_data, outputs_of
from fedjax_lite.sampling.draw import draw, ready

TINY = """\
name = "tiny"
seed = 3
[data]
name = "table"
[[data.clients]]
x = [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
y = [0, 1, 1]
[[data.clients]]
x = [[0.5, 0.5]]
y = [2]
[model]
name = "mlp"
hidden = [3]
[client]
optimizer = { name = "sgd", learning_rate = 0.1 }
batch_size = 2
[sampling]
name = "uniform"
clients = 2
[aggregator]
name = "weighted_mean"
[server]
optimizer = { name = "sgd", learning_rate = 1.0 }
[run]
rounds = 4
evaluate_every = 2
"""

QUICK = (
    ("batch_size = 2", "batch_size = 2\nshuffle = false"),
    ("[run]", '[engine]\nname = "sequential"\n[run]'),
)  # sooner traced, compiled

PRIVATE = """\
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
shuffle = false
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
[engine]
name = "padded"
[server]
optimizer = { name = "sgd", learning_rate = 1.0 }
[run]
rounds = 6
evaluate_every = 3
"""


def edited(folder, text, *replace, overrides=()):
    """The configuration of a text with pairs of it replaced, from the file `tiny.toml`, and overrides."""
    (folder / "tiny.toml").write_text(replaced(text, *replace))
    return load(folder / "tiny.toml", overrides)


def written(file, text):
    """A file with a text, read with the overrides that each call gives."""
    file.write_text(text)
    return lambda *overrides: load(file, overrides)


def replaced(text, *replace):
    """A text with pairs of it replaced."""
    for old, new in replace:
        assert old in text
        text = text.replace(old, new)
    return text


def first_round(config):
    """The first round of a configuration, a function of its data that returns the model and what the round says; and the data."""
    source = load_data(config, 0)
    outputs = outputs_of(config, source)

    clock = None
    if "clock" in config.values:  # what the host makes is made before a program is traced
        before = parts(config, source, outputs, 0)
        wanted = ["devices", *(["table"] if before.algorithm.asynchrony else [])]
        clock = {what: before.clock(what) for what in wanted}.__getitem__

    def round(data):
        algorithm, params, sampler, _, key, *_ = parts(config, source, outputs, 0, clock=clock)
        cohort, state = draw(sampler, algorithm, ready(sampler, algorithm.init(params, key), data.size), data.size)
        state, metrics = algorithm.round(state, data, cohort)
        return algorithm.params(state), metrics

    return round, source.train


def after_a_round(config):
    """The model after the first round, and what the round says, in one program."""
    round, data = first_round(config)
    return jax.jit(round)(data)
