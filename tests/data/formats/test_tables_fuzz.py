"""Damaged files of every format here: each reads, or is refused by one DataError that names it."""

import io
import stat
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fedjax_lite as fl

TABLE = "who,a,b,y\n" + 'ann,1,2.5,0\n"bob",2,1e2,1\nann,-3,,0\nbob,4,0.125,1\n' * 3
ONE = {"partition": fl.partition.iid(clients=1), "test": 0}


def _csv(file):
    file.write_text(TABLE)


def _gzip(file):
    import gzip

    file.write_bytes(gzip.compress(TABLE.encode(), mtime=0))


def _arff(file):
    file.write_text("@relation r\n@attribute a real\n@attribute 'b c' {u, 'v w'}\n@attribute y {0,1}\n@data\n1,u,0\n2,'v w',1\n3,u,0\n")


def _text(file):
    file.write_text("ANN:\nTo be, or not\n\nBOB:\nto b\u00e9\n", encoding="utf-8")


def _png(grey):
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.full((2, 2), grey, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def _zip(file):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, grey in (("all/a/1.png", 0), ("all/a/2.png", 9), ("all/b/3.png", 200)):
            archive.writestr(zipfile.ZipInfo(name), _png(grey))


def _table():
    import pyarrow as pa

    return pa.table({"who": ["a", "b", "a"], "image": [{"bytes": _png(i), "path": None} for i in (0, 9, 99)], "label": [0, 1, 0]})


def _arrow(file):
    import pyarrow as pa

    with pa.ipc.new_stream(str(file), _table().schema) as stream:
        stream.write_table(_table())


def _parquet(file):
    import pyarrow.parquet as pq

    pq.write_table(_table(), file)


READERS = {
    "csv": (_csv, "x.csv", lambda file: fl.data.csv(file, label="y", client="who", missing="mean", test=0)),
    "gzip": (_gzip, "x.csv.gz", lambda file: fl.data.csv(file, label="y", client="who", missing="drop", test=0)),
    "arff": (_arff, "x.arff", lambda file: fl.data.arff(file, **ONE)),
    "text": (_text, "x.txt", lambda file: fl.data.text(file, by="speaker", length=5)),
    "zip": (_zip, "x.zip", lambda file: fl.data.images(file, **ONE)),
    "arrow": (_arrow, "x.arrow", lambda file: fl.data.arrow(file, client="who", test=0)),
    "parquet": (_parquet, "x.parquet", lambda file: fl.data.parquet(file, client="who", test=0)),
}
CHANGE = st.one_of(
    st.tuples(st.just("flip"), st.floats(0, 1, exclude_max=True), st.integers(1, 255)),
    st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
    st.tuples(st.just("repeat"), st.floats(0, 1, exclude_max=True), st.integers(1, 40)),
    st.tuples(st.just("fill"), st.floats(0, 1, exclude_max=True), st.sampled_from([0, 0x22, 0x7F, 0xFF])),
)


def damaged(data, changes):
    """Bytes flipped, cut, repeated, or eight in a row made one, as in a false size."""
    for kind, share, number in changes:
        at = int(share * len(data))
        if kind == "flip" and data:
            data = data[:at] + bytes([data[at] ^ number]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "repeat":
            data = data[: at + number] + data[at:]
        elif kind == "fill":
            data = data[:at] + bytes([number]) * min(8, len(data) - at) + data[at + 8 :]
    return data


def fuzz(name, examples):
    """Read damaged copies of a valid file; what goes wrong is a DataError that names the file, or an argument's refusal."""
    write, called, read = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, called)
        write(file)
        whole = file.read_bytes()
        assert read(file).population

        @given(st.lists(CHANGE, min_size=1, max_size=3))
        @settings(max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
        def attempt(changes):
            file.write_bytes(damaged(whole, changes))
            try:
                read(file)
            except fl.data.DataError as error:
                assert called in str(error) or "column" in str(error), error
            except ValueError as error:
                assert str(error).startswith(("test=", "partition", "iid")), error  # too few examples are left for an argument

        attempt()


@pytest.mark.parametrize("name", READERS)
def test_damage_is_refused_by_name(name):
    fuzz(name, 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_much_damage_is_refused_by_name(name):
    fuzz(name, 10_000)


def test_a_zip_that_says_false_things(tmp_path):
    """Sizes, flags and links are taken from the directory of a zip; each is checked before anything is unpacked."""
    _zip(tmp_path / "x.zip")
    whole = (tmp_path / "x.zip").read_bytes()
    at = whole.index(b"PK\x01\x02")
    changes = {
        "unpacks to more than": (24, (2**32 - 2).to_bytes(4, "little")),
        "is encrypted": (8, b"\x01\x00"),
        "is a link": (38, ((stat.S_IFLNK | 0o777) << 16).to_bytes(4, "little")),
        "cannot be unpacked": (10, b"\x63\x00"),
    }
    for message, (offset, value) in changes.items():
        (tmp_path / "x.zip").write_bytes(whole[: at + offset] + value + whole[at + offset + len(value) :])
        with pytest.raises(fl.data.DataError, match=f"x.zip.* {message}"):
            fl.data.images(tmp_path / "x.zip", **ONE)
