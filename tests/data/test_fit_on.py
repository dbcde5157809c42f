"""`fit_on`: means, deviations and vocabularies of some clients alone."""

import json

import numpy as np
import pytest

import fedjax_lite as fl

TABLE = "who,a,b,y\nann,1,3,0\nann,3,,1\nbob,10,5,0\nbob,20,7,1\ncid,1000,9,0\ncid,3000,100,1\n"
FIRST = [1, 3, 10, 20, 1000, 3000]
READERS = {"csv": ("x.csv", {"label": "y", "client": "who", "missing": "mean"}), "text": ("x.txt", {"by": "speaker", "length": 4})}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "x.csv").write_text(TABLE)
    (tmp_path / "x.txt").write_text("ANN:\nabab\n\nBOB:\nabcc\n\nCID:\nzzzz\n")
    return tmp_path


@pytest.mark.parametrize("names", [["ann", "bob"], ["bob"], None])
def test_a_table_is_standardised_by_the_clients_named(files, names):
    data = fl.data.csv(files / "x.csv", label="y", client="who", missing="mean", fit_on=names, test=0)
    rows = {"ann": [0, 1], "bob": [2, 3], "cid": [4, 5]}
    chosen = [row for name in names or rows for row in rows[name]]
    second = np.array([3, np.nan, 5, 7, 9, 100])
    second[1] = np.nanmean(second[chosen])
    expected = np.array([FIRST, second]).T
    expected = (expected - expected[chosen].mean(axis=0)) / expected[chosen].std(axis=0)
    np.testing.assert_allclose(data.train.examples["x"], expected, rtol=1e-5)


def test_a_column_that_does_not_vary_among_them_is_only_shifted(files):
    (files / "x.csv").write_text("who,a,y\nann,7,0\nann,7,1\nbob,8,0\nbob,9,1\n")
    data = fl.data.csv(files / "x.csv", label="y", client="who", fit_on=["ann"], test=0)
    assert data.train.examples["x"][:, 0].tolist() == [0, 0, 1, 2]


def test_a_column_far_from_zero_keeps_its_deviation(tmp_path):
    """The first value is an outlier: about it the squares lose digits, but not the deviation."""
    values = np.concatenate([[1e6], 1e3 + np.random.default_rng(0).normal(size=20_000)]).astype(np.float32)
    (tmp_path / "x.csv").write_text("a,y\n" + "".join(f"{value!r},0\n" for value in values.tolist()))
    data = fl.data.csv(tmp_path / "x.csv", label="y", partition=fl.partition.iid(clients=1), test=0)
    exact = values.astype(float)
    np.testing.assert_allclose(np.sort(data.train.examples["x"][:, 0]), np.sort((exact - exact.mean()) / exact.std()), rtol=1e-4)


def test_a_vocabulary_is_that_of_the_clients_named(files):
    some = fl.data.text(files / "x.txt", by="speaker", length=4, fit_on=["ANN", "BOB"], test=0)
    assert some.words[4:] == ("a", "b", "c")
    assert some.train.client(2)["y"].tolist() == [[1, 1, 1, 1], [3, 0, 0, 0]]
    assert fl.data.text(files / "x.txt", by="speaker", length=4, test=0).words[4:] == ("a", "b", "c", "z")


def test_a_vocabulary_of_tweets_is_that_of_the_users_named(tmp_path):
    users = {name: {"x": [["1", "d", "q", name, text, "t"]], "y": [0]} for name, text in {"ann": "red red", "bob": "blue"}.items()}
    (tmp_path / "shard.json").write_text(json.dumps({"users": [*users], "num_samples": [1, 1], "user_data": users}))
    data = fl.data.leaf(tmp_path, length=2, fit_on=["bob"], test=0)
    assert data.train.examples["x"].tolist() == [[1, 1], [4, 0]]


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"fit_on": ["eve"]}, "fit_on: 'eve' is no client"),
        ({"fit_on": "ann"}, "fit_on must be a list of clients' names, got 'ann'"),
        ({"fit_on": []}, "fit_on must be a list"),
        ({"fit_on": ["ann"], "partition": fl.partition.iid(clients=2)}, "fit_on is for clients that have names"),
    ],
)
def test_other_values_are_refused(files, name, wrong, message):
    file, arguments = READERS[name]
    with pytest.raises(ValueError, match=message):
        getattr(fl.data, name)(files / file, **arguments, **wrong, test=0)
