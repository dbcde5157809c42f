"""Tables of delimited text, written by hand and read back; their numbers against Python's, their statistics against scikit-learn's."""

import csv as standard
import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

import fedjax_lite as fl
from fedjax_lite.data.formats import text_pieces

PEOPLE = "who,age,weight,sport\nbob,40,80.5,run\nann,20,60,ride\nann,30,61.5,run\ncy,50,1e2,run\n"
AS_READ = {"client": "who", "label": "sport", "standardise": False, "test": 0}


def write(folder, text, name="people.csv"):
    folder.joinpath(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


def arrays(part):
    return {leaf: np.asarray(array) for leaf, array in part.examples.items()}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return fl.data.csv(write(tmp_path_factory.mktemp("csv"), PEOPLE), **AS_READ)


def test_rows_columns_clients_and_classes(people):
    assert people.names == ("ann", "bob", "cy") and people.words == ("ride", "run") and people.test is None
    assert people.train.examples["x"].tolist() == [[20, 60], [30, 61.5], [40, 80.5], [50, 100]]
    assert people.train.examples["y"].tolist() == [0, 1, 1, 1] and people.train.examples["y"].dtype == np.int32


def test_the_same_clients_from_arrays_have_the_same_fingerprint(people):
    x = np.array([[40, 80.5], [20, 60], [30, 61.5], [50, 100]], np.float32)
    same = fl.FederatedData.from_arrays({"x": x, "y": np.array([1, 0, 1, 1])}, [1, 0, 0, 2])
    assert people.train.fingerprint() == same.fingerprint()


@pytest.mark.parametrize(
    "text",
    [
        PEOPLE.replace(",", ";"),
        PEOPLE.replace(",", "\t"),
        PEOPLE.replace(",", " | "),
        PEOPLE.replace("\n", "\r\n"),
        PEOPLE.replace("\n", "\r"),
        "\ufeff" + PEOPLE,
        "\n\n" + PEOPLE.replace("\n", "\n\n"),
        PEOPLE.replace("bob", '"bob"').replace("age", '"age"').replace("run", ' "run"'),
        PEOPLE.removesuffix("\n"),
        gzip.compress(PEOPLE.encode()),
    ],
    ids=["semicolon", "tab", "bar", "windows", "mac", "mark", "blank lines", "quotes", "no last end", "gzip"],
)
def test_ways_to_write_one_table(tmp_path, text, people):
    data = fl.data.csv(write(tmp_path, text), **AS_READ)
    assert data.train.fingerprint() == people.train.fingerprint() and data.names == people.names and data.words == people.words


def test_a_quoted_cell_may_hold_the_delimiter_a_quote_and_a_line_end(tmp_path):
    data = fl.data.csv(write(tmp_path, 'who,x,y\n"a, ""b""\nc",1,0\nd,2,1\n'), client="who", label="y", standardise=False, test=0)
    assert data.names == ('a, "b"\nc', "d") and data.train.examples["x"].tolist() == [[1], [2]]


def test_columns_by_place_and_without_a_header(tmp_path):
    """FLamby's heart disease: 14 columns without names, ? for what is missing, a file a centre."""
    row = "63.0,1.0,1.0,145.0,233.0,1.0,2.0,150.0,0.0,2.3,3.0,{},6.0,{}\n"
    for name, label in (("processed.va.data", 0), ("processed.cleveland.data", 4)):
        write(tmp_path, row.format("0.0", label) * 3 + row.format("?", label), name)
    write(tmp_path, "not a table", "heart-disease.names")
    data = fl.data.csv(tmp_path, label=-1, header=False, missing="drop", standardise=False, test=0)
    assert data.names == ("processed.cleveland", "processed.va") and data.train.size.tolist() == [3, 3]
    assert data.train.examples["y"].tolist() == [4] * 3 + [0] * 3 and data.train.examples["x"].shape == (6, 13)
    some = fl.data.csv(tmp_path, label=13, header=False, features=[0, "9"], missing="mean", standardise=False, test=0)
    assert some.train.examples["x"].tolist() == [[63, np.float32(2.3)]] * 8


def test_files_called_train_and_test_are_parts(tmp_path):
    write(tmp_path, "x,y\n1,0\n2,1\n", "train.csv")
    write(tmp_path, "x,y\n5,0\n", "test.csv")
    data = fl.data.csv(tmp_path, label="y", partition=fl.partition.iid(clients=2), standardise=False)
    assert data.train.population == 2 and data.test.population == 1 and data.test.examples["x"].tolist() == [[5]]


def test_files_called_train_and_test_are_parts_of_the_clients_in_a_column_too(tmp_path):
    write(tmp_path, "who,x,y\nbob,1,0\nann,2,1\nbob,3,1\n", "train.csv")
    write(tmp_path, "who,x,y\nbob,5,0\n", "test.csv")
    data = fl.data.csv(tmp_path, label="y", client="who", standardise=False)
    assert data.names == data.test.names == ("ann", "bob")
    assert data.train.examples["x"].tolist() == [[2], [1], [3]] and data.test.client(1)["x"].tolist() == [[5]]
    assert data.test.size.tolist() == [0, 1]


def test_words_of_features(tmp_path):
    file = write(tmp_path, "colour,x,y\nred,1,0\nblue,2,1\nred,3,0\n")
    one = {"label": "y", "partition": fl.partition.iid(clients=1), "test": 0}
    rows = fl.data.csv(file, **one, standardise=False).train.examples["x"]
    assert sorted(rows.tolist()) == [[0, 1, 1], [0, 1, 3], [1, 0, 2]]
    rows = fl.data.csv(file, **one, standardise=False, text="codes").train.examples["x"]
    assert sorted(rows.tolist()) == [[0, 2], [1, 1], [1, 3]]
    rows = np.asarray(fl.data.csv(file, **one).train.examples["x"])  # words are not standardised
    assert sorted(rows[:, :2].tolist()) == [[0, 1], [0, 1], [1, 0]] and abs(rows[:, 2].mean()) < 1e-6


def test_a_word_far_below_makes_its_column_text(tmp_path, monkeypatch):
    monkeypatch.setattr(text_pieces, "_PIECE", 2**14)
    lines = [f"{i % 7},{i % 2}\n" for i in range(30_000)]
    lines[29_000] = "many,1\n"
    one = {"label": "y", "partition": fl.partition.iid(clients=1), "test": 0, "text": "codes"}
    x = fl.data.csv(write(tmp_path, "x,y\n" + "".join(lines)), **one).train.examples["x"]
    assert np.bincount(np.asarray(x, int)[:, 0]).tolist()[-1] == 1 and x.max() == 7  # the words are 0 .. 6, many


def test_labels(tmp_path):
    file = write(tmp_path, "x,whole,part,word\n1,3,0.5,10\n2,5,1.5,9\n")
    one = {"partition": fl.partition.iid(clients=1), "test": 0, "features": ["x"]}
    assert sorted(fl.data.csv(file, label="whole", **one).train.examples["y"].tolist()) == [3, 5]
    assert fl.data.csv(file, label="part", **one).train.examples["y"].dtype == np.float32
    named = fl.data.csv(file, label="word", classes=["9", "10"], **one)
    assert named.words == ("9", "10") and sorted(named.train.examples["y"].tolist()) == [0, 1]
    assert fl.data.csv(file, label="whole", classes=6, **one).words is None


@given(st.lists(st.tuples(st.floats(allow_nan=False, width=32), st.integers(-(10**6), 10**6)), min_size=1, max_size=40))
@settings(max_examples=25, deadline=None)
def test_numbers_are_pythons(tmp_path_factory, rows):
    file = tmp_path_factory.mktemp("csv") / "a.csv"
    with file.open("w", newline="") as stream:
        standard.writer(stream).writerows([("a", "b", "y"), *((repr(a), b, 0) for a, b in rows if abs(a) < 3e38)])
    expected = np.array([(a, b) for a, b in rows if abs(a) < 3e38], np.float32)
    if len(expected):
        data = fl.data.csv(file, label="y", partition=lambda rng, y: [np.arange(len(y))], standardise=False, test=0)
        np.testing.assert_array_equal(np.asarray(data.train.examples["x"]), expected)


@pytest.mark.parametrize("missing", [False, True])
def test_training_statistics_are_scikit_learns(tmp_path, missing):
    rng = np.random.default_rng(0)
    table = rng.normal(1e3, [1, 50, 0], (60, 3)).round(3)
    cells = [["" if missing and rng.random() < 0.2 and i < 2 else str(v) for i, v in enumerate(row)] for row in table]
    lines = [",".join([f"c{i % 4}", *row, str(i % 2)]) for i, row in enumerate(cells)]
    file = write(tmp_path, "who,a,b,constant,y\n" + "\n".join(lines))
    form = {"client": "who", "label": "y", "missing": "mean", "seed": 3}
    data, raw = fl.data.csv(file, **form), fl.data.csv(file, **form, standardise=False)
    # Who is held out does not depend on what is missing: the same split of the rows' numbers.
    values = np.array([[float(v or "nan") for v in row] for row in cells])
    numbered = fl.FederatedData.from_arrays({"row": np.arange(60)}, [i % 4 for i in range(60)])
    parts = [values[np.asarray(part.examples["row"])] for part in fl.split(numbered, 0.2, seed=3)]
    imputer, scaler = SimpleImputer(), StandardScaler()
    filled = imputer.fit_transform(parts[0])
    scaler.fit(filled)
    for part, whole, ours in zip(parts, raw, data, strict=True):
        np.testing.assert_allclose(np.asarray(whole.examples["x"]), imputer.transform(part), rtol=1e-6)
        np.testing.assert_allclose(np.asarray(ours.examples["x"]), scaler.transform(imputer.transform(part)), atol=2e-4)
    assert sorted(arrays(data.train)) == ["x", "y"]


def test_clients_in_a_column_are_dealt_anew_by_a_partition(tmp_path):
    data = fl.data.csv(write(tmp_path, PEOPLE), **AS_READ | {"partition": fl.partition.iid(clients=2)})
    assert data.train.population == 2 and data.names is None
