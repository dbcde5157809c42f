"""[data] of every kind: found by its path, kept in a cache, and drawn by a seed of its own."""

import gzip
import json
import struct
from importlib import import_module

import jax
import numpy as np
import pytest
from tiny import TINY, edited

import fedjax_lite as fl
from fedjax_lite.configuration.build import build, parts
from fedjax_lite.configuration.data import found_in, load_data, outputs_of, paths_of
from fedjax_lite.configuration.study import study_of
from fedjax_lite.configuration.table import ConfigError

HEAD, TAIL = TINY[: TINY.index("[data]")], TINY[TINY.index("[model]") :]
DIGITS = 'name = "digits"\npartition = { name = "dirichlet", clients = 12, alpha = 1.0, min_size = 6 }'


@pytest.fixture
def configured(tmp_path):
    """The configuration with these lines as its [data]."""
    return lambda data, *overrides: edited(tmp_path, f"{HEAD}[data]\n{data}\n{TAIL}", overrides=overrides)


@pytest.fixture
def files(tmp_path):
    """A LEAF folder and a folder of idx files."""
    for part, shift in (("train", 0), ("test", 0.5)):
        users = {f"u{k}": {"x": [[i + shift, k] for i in range(10)], "y": [(i + k) % 3 for i in range(10)]} for k in range(8)}
        (tmp_path / "leaf" / part).mkdir(parents=True)
        shard = {"users": list(users), "num_samples": [10] * 8, "user_data": users}
        (tmp_path / "leaf" / part / "a.json").write_text(json.dumps(shard))
    images = np.arange(240, dtype=np.uint8).reshape(120, 2, 1)
    (tmp_path / "idx").mkdir()
    (tmp_path / "idx" / "t10k-images-idx3-ubyte.gz").write_bytes(
        gzip.compress(struct.pack(">HBB3I", 0, 8, 3, *images.shape) + images.tobytes())
    )
    (tmp_path / "idx" / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 120) + bytes(k % 3 for k in range(120)))
    return tmp_path


LEAF = 'name = "load"\npath = "leaf"'
IDX = 'name = "load"\npath = "idx"\npartition = { name = "iid", clients = 12 }\ntest = 0.25\nflat = true'
SOURCES = {"digits": DIGITS, "leaf": LEAF, "mnist": IDX}


def prints(source):
    new = [] if source.new is None else source.new
    return [None if part is None else part.fingerprint() for part in (source.train, source.test, source.public, *new)]


def test_several_files_lie_beside_the_configuration(configured, tmp_path):
    for name in ("ann", "bob"):
        (tmp_path / f"{name}.csv").write_text("x,y\n1,0\n2,1\n")
    lines = 'name = "csv"\npath = ["ann.csv", "bob.csv"]\nlabel = "y"\ntest = 0\n'
    assert load_data(configured(lines), 0).names == load_data(configured(lines + 'cache = "kept"'), 0).names == ("ann", "bob")
    assert paths_of(configured(lines)) == {"data.path": [str(tmp_path / "ann.csv"), str(tmp_path / "bob.csv")]}


def test_load_is_the_reader_of_what_is_there(configured, files):
    found = load_data(configured(LEAF + "\ninvert = true"), 0)
    assert found.train.fingerprint() == fl.data.leaf(files / "leaf", invert=True).train.fingerprint()
    partition = fl.partition.iid(clients=12)
    dealt = fl.data.mnist(files / "idx", partition=partition, seed=5, test=0.25, flat=True)
    assert load_data(configured(IDX), 5).train.fingerprint() == dealt.train.fingerprint()
    assert found_in(configured(IDX)) == ["idx is read by mnist: t10k-images-idx3-ubyte.gz is one of MNIST's idx files"]
    assert found_in(configured(DIGITS)) == []
    assert paths_of(configured(LEAF)) == {"data.path": str(files / "leaf")}
    inner = f'{{ {LEAF.replace(chr(10), ", ")}, invert = true, cache = "kept" }}'
    inside = configured(f'name = "feature_noise"\nsigma = 0.0\ninner = {inner}')
    assert load_data(inside, 0).train.fingerprint() == found.train.fingerprint() and len(list((files / "kept").iterdir())) == 1
    assert found_in(inside) and paths_of(inside) == {"data.inner.path": str(files / "leaf"), "data.inner.cache": str(files / "kept")}
    public = load_data(configured(f'{LEAF}\npublic = {{ name = "load", path = "leaf" }}'), 0).public
    assert public.population == 1 and public.size.tolist() == [80]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            LEAF + "\nflat = true",
            r"tiny.toml:6: data.flat: unknown key; there are path, .*.leaf is read by leaf: t.*/a.json is a shard",
        ),
        (LEAF + '\ninvert = "yes"', "data.invert: must be true or false, got 'yes'"),
        ('name = "load"', "tiny.toml:3: data: give path"),
        ('name = "load"\npath = 3', "data.path: must be text, got 3"),
        ('name = "load"\npath = "none"', "tiny.toml:5: data.path: path='.*none' does not exist"),
        ('name = "load"\npath = "."', "tiny.toml:5: data.path: .* holds no known format"),
        (DIGITS + '\ncache = "auto"', "data.cache: is for data that is read from a path: leave it out"),
        (LEAF + "\ncache = 3", 'data.cache: must be "auto", a folder, or false, got 3'),
        (LEAF + "\nseed = -1", "data.seed: must be a whole number from 0 to 2.32 - 1, got -1"),
        (DIGITS + "\nseed = true", "data.seed: must be a whole number from 0 to 2.32 - 1, got True"),
    ],
)
def test_refusals(configured, files, lines, message):
    with pytest.raises(ConfigError, match=message):
        load_data(configured(lines), 0)


def test_a_cache_is_kept_where_the_configuration_says(configured, files, monkeypatch):
    """A folder in a file is relative to that file; false keeps nothing; what is read from the cache is the same."""
    module = import_module("fedjax_lite.data.cached")
    monkeypatch.setattr(module, "SECONDS", 1e9)
    first = load_data(configured(f'{IDX}\ncache = "kept"'), 0)
    (entry,) = (files / "kept").iterdir()
    again = load_data(configured(f'{IDX}\ncache = "kept"'), 0)
    assert prints(first) == prints(again) == prints(load_data(configured(f"{IDX}\ncache = false"), 0))
    load_data(configured(f'{IDX}\ncache = "kept"'), 1)
    assert len(list((files / "kept").iterdir())) == 2  # a seed each
    named = IDX.replace('"load"', '"mnist"') + '\ncache = "kept"'
    assert prints(load_data(configured(named), 0)) == prints(first) and len(list((files / "kept").iterdir())) == 2
    assert paths_of(configured(f'{IDX}\ncache = "kept"'))["data.cache"] == str(files / "kept")
    monkeypatch.setattr(module, "SECONDS", -1.0)
    monkeypatch.setenv("FEDJAX_LITE_CACHE", str(files / "auto"))
    load_data(configured(f"{named.replace('kept', 'auto')}"), 0)
    load_data(configured(IDX.replace('"load"', '"mnist"')), 0)  # says nothing of a cache: none
    load_data(configured(f"{IDX}\ncache = false"), 0)
    assert len(list((files / "auto").iterdir())) == 1
    load_data(configured(LEAF), 0)  # load: "auto"
    assert len(list((files / "auto").iterdir())) == 2


APART = "\nhold_out_clients = 2\ncentral_test = 6\npublic = 5"


@pytest.mark.parametrize("source", SOURCES)
def test_everything_of_data_is_drawn_by_its_own_seed(configured, files, source):
    """Partition, test part, new clients, central test and public examples; without a seed of its own, by the run's."""
    lines = SOURCES[source] + APART
    runs = [prints(load_data(configured(lines), seed)) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] and all(a != b for a, b in zip(runs[0], runs[2], strict=True) if a is not None)
    own = [prints(load_data(configured(f"{lines}\nseed = 1"), seed)) for seed in (0, 7)]
    assert own[0] == own[1] == runs[2] and None not in own[0][:4]
    one = load_data(configured(f"{lines}\nseed = 1"), 0)
    assert one.new.population == 2 and one.test.size.tolist() == [6] and one.public.size.tolist() == [5]
    if one.names is not None:
        assert not set(one.names) & set(one.new.names) and len(one.names) == one.population


def test_clients_that_never_take_part_decide_no_statistics_and_no_word(configured, tmp_path):
    """Each client has a number and a character of its own: those of the clients held out are not in the mean, nor in the vocabulary."""
    letters = "abcdef"
    (tmp_path / "x.csv").write_text("who,x,y\n" + "".join(f"{c},{10**k},0\n{c},{10**k + 1},1\n" for k, c in enumerate(letters)))
    (tmp_path / "x.txt").write_text("\n".join(f"{c}:\n{c}{c}{c}\n" for c in letters))
    table = 'name = "csv"\npath = "x.csv"\nlabel = "y"\nclient = "who"\ntest = 0\nhold_out_clients = 2'
    one = load_data(configured(table), 0)
    np.testing.assert_allclose(one.train.examples["x"].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(one.train.examples["x"].std(axis=0), 1, rtol=1e-5)
    noisy = table.replace('name = "csv"\n', "").replace("test = 0\nhold_out_clients = 2", 'test = 0, name = "csv"').replace("\n", ", ")
    inner = load_data(configured(f'name = "feature_noise"\nsigma = 0\ninner = {{ {noisy} }}\nhold_out_clients = 2'), 0)
    np.testing.assert_allclose(inner.train.examples["x"].mean(axis=0), 0, atol=1e-6)
    text = load_data(configured('name = "text"\npath = "x.txt"\nby = "speaker"\nlength = 4\ntest = 0\nhold_out_clients = 2'), 0)
    assert text.words[4:] == text.names and len(text.names) == 4
    assert all(set(np.ravel(text.new.train.client(k)["y"]).tolist()) <= {0, 1, 3} for k in range(2))


def first_parameters(config, seed):
    source = load_data(config, 0)
    made = parts(config, source, outputs_of(config, source), seed)
    return made.params, made.key


def test_a_models_seed_is_apart_from_the_runs(configured):
    leaves = lambda config, seed: [np.asarray(x).tolist() for x in jax.tree.leaves(first_parameters(config, seed)[0])]  # noqa: E731
    plain, own = configured(DIGITS), configured(DIGITS, "model.seed=5")
    assert leaves(own, 0) == leaves(own, 1) == leaves(plain, 5) != leaves(plain, 0)
    assert first_parameters(own, 0)[1] == first_parameters(plain, 0)[1] != first_parameters(own, 1)[1]
    with pytest.raises(ConfigError, match="--set model.seed=-1: model.seed: must be a whole number from 0"):
        configured(DIGITS, "model.seed=-1")


@pytest.mark.deep
def test_a_study_over_seeds_with_the_data_or_the_model_held(configured, files):
    """Each cell is the run of its values; with a seed of its own the data is one for all seeds."""
    grid = ("grid.seed=[3, 4]", "grid={seed=[3,4], data.seed=[0, 1]}", "grid={seed=[3,4], model.seed=[0, 1]}")
    held = study_of(configured(LEAF + "\nhold_out_clients = 2\nseed = 1", grid[0]))(progress=False)
    assert len([name for name in held.made["data"] if name.startswith("train")]) == 1
    over = study_of(configured(LEAF + "\nhold_out_clients = 2", grid[1]))(progress=False)
    assert len([name for name in over.made["data"] if name.startswith("train")]) == 2
    np.testing.assert_allclose(held.results["test_loss"], over.results["test_loss"][1], rtol=1e-6)
    models = study_of(configured(LEAF, grid[2]))(progress=False)
    for place, seed in enumerate((0, 1)):
        one = configured(LEAF, f"model.seed={seed}", "seed=4")
        alone = [record["test_loss"] for record in build(one)(progress=False).history if "test_loss" in record]
        np.testing.assert_allclose(models.results["test_loss"][place, 1], alone, rtol=1e-5)


@pytest.mark.deep
def test_a_study_over_devices_counts_the_classes_of_each_seeds_clients(configured):
    mesh = jax.make_mesh((2,), ("runs",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    with jax.set_mesh(mesh):
        found = study_of(configured(DIGITS, 'model.class_counts="own"', "grid.seed=[3, 4]"))(progress=False)
    for place, seed in enumerate((3, 4)):
        one = configured(DIGITS, 'model.class_counts="own"', f"seed={seed}")
        alone = [record["test_loss"] for record in build(one)(progress=False).history if "test_loss" in record]
        np.testing.assert_allclose(found.results["test_loss"][place], alone, rtol=1e-5)
