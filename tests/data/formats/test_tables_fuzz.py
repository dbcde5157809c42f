"""Damaged tables, zips of images, Arrow, Parquet and text: each reads, or is refused by one DataError that names it."""

import gzip
import io
import stat
import zipfile

import numpy as np
import pytest
from fuzz import fuzz

import fedjax_lite as fl

TABLE = "who,a,b,y\n" + 'ann,1,2.5,0\n"bob",2,1e2,1\nann,-3,,0\nbob,4,0.125,1\n' * 3
ONE = {"partition": fl.partition.iid(clients=1), "test": 0}


def _csv(file):
    file.write_text(TABLE)


def _gzip(file):
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
    "csv": (_csv, "x.csv", lambda folder: fl.data.csv(folder, label="y", client="who", missing="mean", test=0)),
    "gzip": (_gzip, "x.csv.gz", lambda folder: fl.data.csv(folder, label="y", client="who", missing="drop", test=0)),
    "arff": (_arff, "x.arff", lambda folder: fl.data.arff(folder, **ONE)),
    "text": (_text, "x.txt", lambda folder: fl.data.text(folder, by="speaker", length=5, test=0)),
    "zip": (_zip, "x.zip", lambda folder: fl.data.images(folder / "x.zip", **ONE)),
    "arrow": (_arrow, "x.arrow", lambda folder: fl.data.arrow(folder / "x.arrow", client="who", test=0)),
    "parquet": (_parquet, "x.parquet", lambda folder: fl.data.parquet(folder, client="who", test=0)),
}


def damage(name, examples):
    write, called, read = READERS[name]
    fuzz(read, lambda folder: write(folder / called), examples)


@pytest.mark.parametrize("name", READERS)
def test_damage_is_refused_by_name(name):
    damage(name, 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_much_damage_is_refused_by_name(name):
    damage(name, 10_000)


def test_a_zip_that_says_false_things(tmp_path):
    """Sizes, flags and links are taken from the directory of a zip; each is checked before anything is unpacked."""
    _zip(tmp_path / "x.zip")
    whole = (tmp_path / "x.zip").read_bytes()
    at = whole.index(b"PK\x01\x02")
    changes = {
        "unpacks to more than": (24, (2**32 - 2).to_bytes(4, "little")),
        "says 2,147,483,647 bytes": (20, b"\xff\xff\xff\x7f"),
        "the entry of '' says": (28, b"\0\0\0\0\x0b\0"),  # its name is taken for a remark
        "is encrypted": (8, b"\x01\x00"),
        "is a link": (38, ((stat.S_IFLNK | 0o777) << 16).to_bytes(4, "little")),
        "cannot be unpacked": (10, b"\x63\x00"),
    }
    for message, (offset, value) in changes.items():
        (tmp_path / "x.zip").write_bytes(whole[: at + offset] + value + whole[at + offset + len(value) :])
        with pytest.raises(fl.data.DataError, match=f"x.zip.* {message}"):
            fl.data.images(tmp_path / "x.zip", **ONE)
