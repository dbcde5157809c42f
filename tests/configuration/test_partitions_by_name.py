"""Every partition by its name in a configuration, and data sets inside others."""

import tomllib

import numpy as np
import pytest
from tiny import TINY, edited

import fedjax_lite as fl
from fedjax_lite.configuration.data import load_data, paths_of
from fedjax_lite.configuration.registry import names
from fedjax_lite.configuration.table import ConfigError

OF_DATA = TINY[TINY.index("[data]") : TINY.index("[model]")]
MIX = [[1] * 10, [3, 1, 1, 1, 1, 1, 1, 1, 1, 1]]
TABLES = {  # name -> its other keys, and the sizes that they give 1797 digits
    "by": ('values = "y", inner = { name = "iid", clients = 2 }', [899, 898]),
    "class_shares": (f"shares = {[[2] * 10, [1] * 10]}", [1198, 599]),
    "continuous": ('clients = 2, values = "y", strictness = 0.5', [899, 898]),
    "dirichlet": ("clients = 4, alpha = 1.0", None),
    "dirichlet_class": ("clients = 4, alpha = 1", None),
    "dirichlet_feddf": ("clients = 4, alpha = 1.0, group_size = 2, recut = true", [450, 449, 449, 449]),
    "dirichlet_hsu": ('clients = 4, alpha = 1.0, prior = "ones"', [449] * 4),
    "given_sizes": ("sizes = [3, 5]", [3, 5]),
    "growing_sizes": ('clients = 2, growth = "square"', [359, 1438]),
    "iid": ("clients = 2", [899, 898]),
    "inner_dirichlet": ('inner = { name = "given_sizes", sizes = [9, 30] }, alpha = 0.1', [9, 30]),
    "label_mix": (f'inner = {{ name = "given_sizes", sizes = [10, 12] }}, mix = {MIX}', [10, 12]),
    "labels_per_client": ('clients = 20, labels = 2, assignment = "deterministic"', None),
    "lognormal_sizes": ("clients = 4, sigma = 0.3", None),
    "natural": ('ids = "y"', [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]),
    "power_law": ("clients = 20, sigma = 1.0", None),
    "quantity_skew": ("clients = 4, beta = 2", None),
    "shards": ("clients = 4, shard_size = 200", None),
    "similarity": ("clients = 2, share = 0.1", [899, 898]),
}


def digits(tmp_path, partition, around="{}"):
    inside = f'name = "digits"\ntest = 0\npartition = {partition}\n'
    return edited(tmp_path, TINY, (OF_DATA, f"[data]\n{around.format(inside)}"))


def test_every_name_has_its_table():
    assert set(TABLES) == set(names("partition")) == set(fl.partition.__all__)


@pytest.mark.parametrize("name", TABLES)
def test_a_partition_deals_as_its_function_does(tmp_path, name):
    keys, sizes = TABLES[name]
    train = load_data(digits(tmp_path, f'{{ name = "{name}", {keys} }}'), 3).train
    assert sizes is None or train.size.tolist() == sizes
    arguments = tomllib.loads(f"x = {{ {keys} }}")["x"]
    if "inner" in arguments:
        inside = arguments["inner"]
        arguments["inner"] = getattr(fl.partition, inside.pop("name"))(**inside)
    expected = fl.data.digits(getattr(fl.partition, name)(**arguments), seed=3, test=0).train
    assert train.fingerprint() == expected.fingerprint()


@pytest.mark.parametrize(
    "table, message",
    [
        (
            '{ name = "natural", ids = "writer" }',
            "data.partition: partition deals by 'writer', which the examples do not have; they h",
        ),
        ('{ name = "labels_per_client", clients = 4, labels = 11 }', r"data.partition.clients: .*labels must be at most 10"),
        ('{ name = "given_sizes", sizes = [1000, 1000] }', r"data.partition.sizes: .*add up to 2000, there are 1797 examples: lower them"),
        ('{ name = "shards", clients = 4, shard_size = 600 }', r"data.partition.clients: .*shard_size=600 need 4 shards, 1797 .* make 2"),
        ('{ name = "growing_sizes", clients = 4, growth = "fast" }', "data.partition.growth: .*must be one of 'linear', 'square', 'exp"),
        ('{ name = "class_shares", shares = [1, 2] }', "data.partition.shares: must be a list, got"),
        ('{ name = "similarity", clients = 4 }', "data.partition: give share"),
    ],
)
def test_what_cannot_be_is_refused_at_its_line(tmp_path, table, message):
    with pytest.raises(ConfigError, match=rf"tiny.toml:\d+: .*{message}"):
        load_data(digits(tmp_path, table), 0)


def test_a_data_set_inside_another(tmp_path):
    """Angles of clients, and noise on top: the inner data set gets the run's seed, and its paths are known."""
    around = 'name = "feature_noise"\nsigma = 0.5\n[data.inner]\nname = "rotated"\nangles = [0, 90]\n[data.inner.inner]\n{}'
    config = digits(tmp_path, '{ name = "iid", clients = 4 }', around)
    plain = fl.data.digits(fl.partition.iid(4), seed=3, test=0)
    expected = fl.data.feature_noise(fl.data.rotated(plain, [0, 90]), 0.5, seed=3).train
    assert load_data(config, 3).train.fingerprint() == expected.fingerprint()
    assert not np.array_equal(expected.examples["x"], plain.train.examples["x"])
    stored = edited(tmp_path, TINY, (OF_DATA, '[data]\nname = "rotated"\nangles = [90]\ninner = { name = "leaf", path = "here" }\n'))
    assert paths_of(stored) == {"data.inner.path": str(tmp_path / "here")}
