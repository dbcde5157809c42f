"""Arrow and Parquet: tables written by pyarrow as Hugging Face's `save_to_disk` lays them out, and read back."""

import io
import json

import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.data import DataError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
PEOPLE = {"who": ["bob", "ann", "ann", "cy"], "age": [40, 20, 30, 50], "weight": [80.5, 60, 61.5, 100], "label": ["no", "yes", "yes", "no"]}
AS_READ = {"client": "who", "standardise": False, "test": 0}


def class_label(names, **columns):
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    return pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def save(folder, table, shards=1):
    """Lay a split out as `save_to_disk` does."""
    folder.mkdir(parents=True, exist_ok=True)
    cut = np.linspace(0, len(table), shards + 1).astype(int)
    for i in range(shards):
        with pa.ipc.new_stream(str(folder / f"data-{i:05}-of-{shards:05}.arrow"), table.schema) as stream:
            stream.write_table(table.slice(cut[i], cut[i + 1] - cut[i]))
    (folder / "cache-1234.arrow").write_bytes(b"left by map()")
    (folder / "state.json").write_text("{}")
    return folder


def save_splits(folder, **tables):
    for name, table in tables.items():
        save(folder / name, table)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(tables)}))
    return folder


def test_the_same_table_as_csv_arrow_and_parquet_is_the_same_population(tmp_path):
    table = pa.table(PEOPLE)
    save(tmp_path / "arrow", table, shards=3)
    pq.write_table(table, tmp_path / "people.parquet")
    with pa.ipc.new_file(str(tmp_path / "one.arrow"), table.schema) as file:
        file.write_table(table)
    lines = [",".join(PEOPLE), *(",".join(map(str, row)) for row in zip(*PEOPLE.values(), strict=True))]
    (tmp_path / "people.csv").write_text("\n".join(lines))
    made = [
        fl.data.csv(tmp_path / "people.csv", label="label", **AS_READ),
        fl.data.arrow(tmp_path / "arrow", **AS_READ),
        fl.data.arrow(tmp_path / "one.arrow", **AS_READ),
        fl.data.parquet(tmp_path / "people.parquet", **AS_READ),
    ]
    for data in made:
        assert data.train.fingerprint() == made[0].train.fingerprint()
        assert data.names == ("ann", "bob", "cy") and data.words == ("no", "yes")


def test_splits_class_labels_and_images(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pictures = np.random.default_rng(0).integers(0, 256, (3, 2, 2), np.uint8)

    def png(array):
        stream = io.BytesIO()
        image.fromarray(array).save(stream, "PNG")
        return {"bytes": stream.getvalue(), "path": None}

    train = class_label(["cat", "dog"], image=[png(pictures[0]), png(pictures[1])], label=[1, 0])
    test = class_label(["cat", "dog"], image=[png(pictures[2])], label=[1])
    data = fl.data.arrow(save_splits(tmp_path, train=train, test=test), grey=True, partition=lambda rng, y: [np.arange(len(y))])
    np.testing.assert_array_equal(data.train.examples["x"], pictures[:2, ..., None] / np.float32(255))
    np.testing.assert_array_equal(data.test.examples["x"], pictures[2:, ..., None] / np.float32(255))
    assert data.words == ("cat", "dog") and data.train.examples["y"].tolist() == [1, 0]


def test_parts_of_parquet_by_name(tmp_path):
    for name, table in (("train-00000-of-00001", pa.table(PEOPLE)), ("validation", pa.table(PEOPLE).slice(0, 1))):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    data = fl.data.parquet(tmp_path, client="who")
    assert data.train.size.tolist() == [2, 1, 1] and data.test.size.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.list_(pa.uint8())), pa.list_(pa.list_(pa.float64(), 3), 2), pa.large_list(pa.list_(pa.int32()))]
)
def test_lists_are_arrays(tmp_path, kind):
    values = np.arange(12).reshape(2, 2, 3)
    table = pa.table({"pixels": pa.array(values.tolist(), kind), "label": [0, 1], "who": [7, 5], "path": ["a", "b"]})
    data = fl.data.arrow(save(tmp_path, table), client="who", features=["pixels"], test=0)
    assert data.names == ("5", "7")
    np.testing.assert_array_equal(data.train.examples["x"], values[::-1].astype(np.float32))


def test_missing_words_and_kinds_of_columns(tmp_path):
    columns = {"a": [1, None, 3], "b": [True, False, True], "c": pa.array(["u", "v", "u"]).dictionary_encode(), "label": [0.5, 1, 2]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    one = {"partition": lambda rng, y: [np.arange(len(y))], "test": 0, "standardise": False}
    with pytest.raises(DataError, match="t.parquet, row 1, column 'a': a value is missing"):
        fl.data.parquet(tmp_path, **one)
    filled = fl.data.parquet(tmp_path, missing="mean", **one).train.examples
    assert filled["x"].tolist() == [[1, 1, 1, 0], [2, 0, 0, 1], [3, 1, 1, 0]] and filled["y"].tolist() == [0.5, 1, 2]
    dropped = fl.data.parquet(tmp_path, missing="drop", text="codes", features=["c", "a"], **one).train.examples
    assert dropped["x"].tolist() == [[0, 1], [0, 3]] and dropped["y"].tolist() == [0.5, 2]


@pytest.mark.parametrize(
    ("columns", "arguments", "message"),
    [
        ({"x": [1, 2]}, {}, "label: .*t.parquet has no column 'label'; it has 'x'"),
        ({"x": [], "label": []}, {}, "t.parquet holds no rows"),
        ({"x": [1, 2], "label": [0, 1]}, {"client": "who"}, "client: .* has no column 'who'"),
        ({"x": [1, 2], "label": [0, 1]}, {"features": ["z"]}, "features: .* has no column 'z'"),
        ({"label": [0, 1]}, {}, "must be different columns, and one at least a feature"),
        ({"x": [1, 2], "label": [0, 1]}, {"client": "label"}, "must be different columns"),
        ({"x": [[1], [2]], "z": [1, 2], "label": [0, 1]}, {}, "columns x, z of .* are arrays and others: choose one"),
        ({"x": [[1], [2, 3]], "label": [0, 1]}, {}, r"column 'x' of .* holds lists of the lengths \[1, 2\]"),
        ({"x": [[1], None], "label": [0, 1]}, {}, "column 'x' .*: 1 of its images or lists are missing"),
        ({"x": [[1], [None]], "label": [0, 1]}, {}, "column 'x' .* holds int64, 1 missing"),
        ({"x": [["a"], ["b"]], "label": [0, 1]}, {}, "column 'x' .* holds string"),
        ({"x": [[1.0], [float("nan")]], "label": [0, 1]}, {}, "column 'x' .* holds NaN"),
        ({"x": [1.0, 1e39], "label": [0, 1]}, {}, "holds a feature that is not finite in float32"),
        ({"x": [b"not an image", b""], "label": [0, 1]}, {}, "row 0, column 'x' cannot be read as an image"),
        ({"x": pa.array([1, 2], pa.timestamp("s")), "label": [0, 1]}, {}, "column 'x' .* holds timestamp"),
        ({"x": [1, 2], "label": [0, None]}, {"missing": "mean"}, "row 1, column 'label': a value is missing"),
        ({"x": [1, None], "label": [None, 1]}, {"missing": "drop"}, "holds no rows without a missing value"),
        ({"x": [str(i) + "x" for i in range(101)], "label": [0] * 101}, {}, "column 'x' has 101 different words"),
    ],
    ids=range(18),
)
def test_refusals(tmp_path, columns, arguments, message):
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=message):
        fl.data.parquet(tmp_path / "t.parquet", **{"partition": fl.partition.iid(clients=1), "test": 0, **arguments})


def test_files_that_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not there: give a folder that save_to_disk wrote"):
        fl.data.arrow(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no data-[*].arrow"):
        fl.data.arrow(tmp_path)
    save(tmp_path, pa.table(PEOPLE))
    file = tmp_path / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match="data-00000-of-00001.arrow cannot be read"):
        fl.data.arrow(tmp_path)
    for splits, message in (('{"splits": ["../secret"]}', "must list the names of folders"), ("{", "is damaged"), ("[]", "is damaged")):
        (tmp_path / "dataset_dict.json").write_text(splits)
        with pytest.raises(DataError, match=f"dataset_dict.json {message}"):
            fl.data.arrow(tmp_path)
    with pytest.raises(DataError, match="has the splits a, b and none is train"):
        fl.data.arrow(save_splits(tmp_path, a=pa.table(PEOPLE), b=pa.table(PEOPLE)), client="who")
    strange = class_label(["cat"], x=[1, 2], label=[0, -1])
    with pytest.raises(DataError, match="column 'label' .* holds labels that are none of its 1 classes"):
        fl.data.arrow(save_splits(tmp_path, train=strange), partition=fl.partition.iid(clients=1))
    with pytest.raises(DataError, match=r"has the columns \['x'\]"):
        fl.data.arrow(save_splits(tmp_path, train=pa.table(PEOPLE), test=pa.table({"x": [1]})), client="who")
