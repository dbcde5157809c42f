"""TFF's SQLite, its tf.train.Examples written byte by byte and by protobuf."""

import lzma
import sqlite3
import struct

import numpy as np
import pytest

from fedjax_lite.data import DataError, tff_sqlite
from fedjax_lite.data.formats.example_proto import features_of
from fedjax_lite.data.formats.snippets import WORDS, windows


def varint(value):
    value &= 2**64 - 1
    some = bytearray()
    while value > 127:
        some.append(value & 127 | 128)
        value >>= 7
    return bytes([*some, value])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values):
    if isinstance(values[0], bytes):
        return field(1, b"".join(field(1, value) for value in values))
    if isinstance(values[0], float):
        return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))
    return field(3, field(1, b"".join(map(varint, values))))


def example(**features):
    return field(1, b"".join(field(1, field(1, name.encode()) + field(2, feature(values))) for name, values in features.items()))


def write(file, rows, schema="examples (split_name TEXT, client_id TEXT, serialized_example_proto BLOB)"):
    file.unlink(missing_ok=True)
    database = sqlite3.connect(file)
    database.execute(f"CREATE TABLE {schema}")
    database.execute("CREATE TABLE client_metadata (client_id TEXT, split_name TEXT, num_examples INTEGER)")
    database.executemany("INSERT INTO examples VALUES (?, ?, ?)", rows)
    database.commit()
    database.close()
    return file


def digit(seed, label):
    return example(pixels=np.random.default_rng(seed).random(784).astype(np.float32).tolist(), label=[label])


def test_emnist_and_its_splits(tmp_path):
    rows = [("train", "b", digit(0, 7)), ("train", "a", digit(1, 61)), ("test", "b", digit(2, 3)), ("train", "b", digit(3, 8))]
    write(tmp_path / "emnist_all.sqlite", [*rows, ("heldout", "c", b"not looked at")])
    data = tff_sqlite(tmp_path)
    assert data.names == ("a", "b") and data.train.size.tolist() == [1, 2] and data.test.size.tolist() == [0, 1]
    assert data.train.examples["y"].tolist() == [61, 7, 8] and data.test.examples["y"].tolist() == [3]
    images = np.random.default_rng(3).random(784).astype(np.float32).reshape(28, 28, 1)
    np.testing.assert_array_equal(data.train.client(1)["x"][1], images)
    np.testing.assert_array_equal(tff_sqlite(tmp_path, invert=True).train.client(1)["x"][1], 1 - images)


@pytest.mark.parametrize("container", [lzma.FORMAT_XZ, lzma.FORMAT_ALONE])
def test_it_may_be_packed(tmp_path, monkeypatch, container):
    monkeypatch.setattr("fedjax_lite.data.formats.reading._AT_LEAST", 2**20)
    plain = write(tmp_path / "a.sqlite", [("train", "a", digit(1, 6)), ("train", "a", digit(2, 5))])
    (tmp_path / "packed").mkdir()
    packed = tmp_path / "packed" / "a.sqlite.lzma"
    packed.write_bytes(lzma.compress(plain.read_bytes(), container))
    assert tff_sqlite(tmp_path / "packed", test=0.5).train.fingerprint() == tff_sqlite(plain, test=0.5).train.fingerprint()
    packed.write_bytes(packed.read_bytes()[:-30])
    with pytest.raises(DataError, match="a.sqlite.lzma: .*it is cut off, damaged"):
        tff_sqlite(packed)
    packed.write_bytes(lzma.compress(bytes(2**22), container, preset=0))
    with pytest.raises(DataError, match="a.sqlite.lzma: it has .* bytes unpacked, too many for a file of this size"):
        tff_sqlite(packed)


def test_a_packed_file_that_asks_for_much_memory(tmp_path):
    alone = b"\x5d" + struct.pack("<I", 2**31) + b"\xff" * 8 + bytes(64)  # a dictionary of 2 GiB
    (tmp_path / "a.sqlite.lzma").write_bytes(alone)
    with pytest.raises(DataError, match="a.sqlite.lzma: Memory usage limit"):
        tff_sqlite(tmp_path)


def test_cifar_100_and_shakespeare(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3))
    row = example(image=image.ravel().tolist(), label=[99], coarse_label=[19])
    write(tmp_path / "a.sqlite", [("train", "0", row)])
    for label, expected in (("label", 99), ("coarse_label", 19)):
        data = tff_sqlite(tmp_path, features={"x": "image", "y": label}, test=0)
        np.testing.assert_array_equal(data.train.examples["x"][0], (image / 255).astype(np.float32))
        assert data.train.examples["y"].tolist() == [expected]
    lines = [b"To be,", b"or not"]
    write(tmp_path / "a.sqlite", [("train", "HAMLET", example(snippets=[line])) for line in lines])
    data = tff_sqlite(tmp_path, length=5, test=0)
    assert data.words == WORDS and data.train.examples["x"].tolist() == windows(lines, 5)["x"].tolist()


def message_class():
    """tf.train.Example, made at run time by protobuf: the oracle."""
    pytest.importorskip("google.protobuf")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="oracle.proto", package="oracle", syntax="proto3")

    def message(name, *fields):
        made = file.message_type.add(name=name)
        for number, (field_name, kind, repeated) in enumerate(fields, 1):
            one = made.field.add(name=field_name, number=number, label=3 if repeated else 1)
            one.type = kind if isinstance(kind, int) else 11
            if isinstance(kind, str):
                one.type_name = kind
        return made

    message("BytesList", ("value", 12, True))
    message("FloatList", ("value", 2, True))
    message("Int64List", ("value", 3, True))
    kinds = (
        ("bytes_list", ".oracle.BytesList", False),
        ("float_list", ".oracle.FloatList", False),
        ("int64_list", ".oracle.Int64List", False),
    )
    message("Feature", *kinds)
    features = message("Features", ("feature", ".oracle.Features.FeatureEntry", True))
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=1, type=9)
    entry.field.add(name="value", number=2, label=1, type=11, type_name=".oracle.Feature")
    message("Example", ("features", ".oracle.Features", False))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("oracle.Example"))


def test_what_protobuf_writes_is_read():
    made = message_class()()
    numbers = [0, 1, 127, 128, -1, 300, 2**63 - 1, -(2**63), 2**35]
    made.features.feature["i"].int64_list.value.extend(numbers)
    made.features.feature["f"].float_list.value.extend([0.5, -2.0, 1e30])
    made.features.feature["b"].bytes_list.value.extend([b"", b"a\0b"])
    made.features.feature["none"].int64_list.SetInParent()
    found = features_of(made.SerializeToString())
    assert found["i"].tolist() == numbers and found["i"].dtype == np.int64 and found["none"].size == 0
    assert found["f"].tolist() == np.array([0.5, -2, 1e30], np.float32).tolist() and found["b"] == [b"", b"a\0b"]


def test_numbers_that_are_not_packed():
    integers = b"\x08\x05" + b"\x08" + varint(-3)
    floats = b"\x0d" + struct.pack("<f", 2.5) + b"\x0d" + struct.pack("<f", 0.5)
    entries = [
        field(1, field(1, name) + field(2, field(number, values))) for name, number, values in ((b"i", 3, integers), (b"f", 2, floats))
    ]
    found = features_of(field(1, b"".join(entries)))
    assert found["i"].tolist() == [5, -3] and found["f"].tolist() == [2.5, 0.5]


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"\x0a\x05a", "the field 1 ends beyond its message"),
        (b"\x08\x05", "the field 1 is a number and no message"),
        (b"\x0b", "encoded in the unknown way 3"),
        (b"\xff" * 11, "a number has no end"),
        (b"\x0a", "a number has no end"),
        (field(1, field(1, field(1, b"x") + field(2, field(4, b"")))), "a feature has the field 4"),
        (field(1, field(1, field(1, b"x") + field(2, field(2, b"\x08\x01")))), "a list of floats holds other values"),
        (field(1, field(1, field(1, b"x") + field(2, field(2, field(1, b"abc"))))), "no tf.train.Example: buffer size"),
        (field(1, field(1, field(1, b"x") + field(2, field(3, field(1, b"\xff"))))), "a number has no end"),
        (field(1, field(1, field(1, b"x") + field(2, field(3, b"\x0d" + b"abcd")))), "a list of integers holds other values"),
        (field(1, field(1, b"\x08\x05")), "the field 1 of a feature's entry is a number and no message"),
        (field(1, field(1, field(1, b"\xff"))), "no tf.train.Example: .*decode"),
        ("text", "serialized_example_proto holds no bytes|is no tf.train.Example"),
        (7, "serialized_example_proto holds no bytes"),
        (b"", "has the features : say which are which"),
        (example(x=[1.0], y=[1, 2]), None),
    ],
)
def test_examples_that_are_none(tmp_path, blob, message):
    write(tmp_path / "a.sqlite", [("train", "ann", blob)])
    if message is None:
        assert tff_sqlite(tmp_path, test=0).example["y"].shape == (2,)
        return
    with pytest.raises(DataError, match=f"a.sqlite.*({message})"):
        tff_sqlite(tmp_path, test=0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("test", "a", b"")], 'a.sqlite has no examples of the split "train"'),
        ([("train", "a", example(x=[1.0], y=[1])), ("train", "a", example(x=[1.0]))], "client 'a': y is missing in some examples"),
        ([("train", "a", example(x=[1.0], y=[1])), ("train", "a", example(x=[1.0, 2.0], y=[1]))], "client 'a': x is missing in some"),
        ([("train", "a", example(x=[1.0], y=[1])), ("train", "b", example(x=[1.0], y=[b"c"]))], "client 'b': the feature 'y' is text"),
        ([("train", "a", example(pixels=[1.0], label=[1]))], r"client 'a': pixels has the shape \[1\] an example"),
        ([("train", None, example(x=[1.0], y=[1]))], "client_id holds None, which is no text"),
        ([(None, "a", example(x=[1.0], y=[1]))], "split_name holds None, which is no text"),
        ([("train", b"\xff", example(x=[1.0], y=[1]))], "a.sqlite: .*decode"),
    ],
)
def test_rows_that_do_not_fit(tmp_path, rows, message):
    write(tmp_path / "a.sqlite", rows)
    with pytest.raises(DataError, match=message):
        tff_sqlite(tmp_path, test=0)


def test_tables_that_are_made_up(tmp_path):
    def refused(message, *statements):
        file = tmp_path / "a.sqlite"
        file.unlink(missing_ok=True)
        database = sqlite3.connect(file)
        for statement in statements:
            database.execute(statement)
        database.commit()
        database.close()
        with pytest.raises(DataError, match=f"a.sqlite: {message}"):
            tff_sqlite(tmp_path)

    refused("there is no table 'examples': it is another format", "CREATE TABLE other (a)")
    refused(
        "there is no table 'examples'",
        "CREATE VIEW examples AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT 'train' AS split_name, 'a' AS client_id, zeroblob(1000000000) AS serialized_example_proto FROM n",
    )
    refused("there is no table 'examples'", "CREATE VIRTUAL TABLE examples USING fts5(split_name, client_id, serialized_example_proto)")
    refused("the table 'examples' has no column 'serialized_example_proto'", "CREATE TABLE examples (split_name, client_id)")
    refused(
        "the table 'examples' has no column 'serialized_example_proto' with values",
        "CREATE TABLE examples (split_name, client_id, serialized_example_proto BLOB AS (zeroblob(1000000000)))",
        "INSERT INTO examples VALUES ('train', 'a')",
    )
    with pytest.raises(FileNotFoundError, match="holds no file with the ending .sqlite or"):
        tff_sqlite((tmp_path / "empty").mkdir() or tmp_path / "empty")
    (tmp_path / "b.sqlite").write_bytes(b"")
    with pytest.raises(DataError, match="holds more than one data set .a.sqlite, b.sqlite.: give one"):
        tff_sqlite(tmp_path)
    (tmp_path / "b.sqlite").write_bytes(b"SQLite format 3\0" + b"\xff" * 200)
    with pytest.raises(DataError, match="b.sqlite: "):
        tff_sqlite(tmp_path / "b.sqlite")


def test_a_tree_of_pages_that_leads_back_ends(tmp_path):
    """Damage can make a table's pages their own children, and its rows without end."""
    file = write(tmp_path / "a.sqlite", [("train", "a", example(x=[1.0], y=[i])) for i in range(1000)])
    data = bytearray(file.read_bytes())
    page = int.from_bytes(data[16:18], "big")
    for start in range(0, len(data), page):
        if data[start] == 5:  # an inner page of a table: all its children become the first
            cells = int.from_bytes(data[start + 3 : start + 5], "big")
            child = data[start + int.from_bytes(data[start + 12 : start + 14], "big") :][:4]
            for i in range(cells):
                place = start + int.from_bytes(data[start + 12 + 2 * i : start + 14 + 2 * i], "big")
                data[place : place + 4] = child
    file.write_bytes(bytes(data))
    try:
        assert tff_sqlite(file, test=0).train.size.sum() < 10_000
    except DataError as error:
        assert str(file) in str(error)
