"""Mistakes in tables: one error with the file, the line, the column and what to do."""

import gzip

import pytest

import fedjax_lite as fl
from fedjax_lite.data import DataError
from fedjax_lite.data.formats import text_pieces

HEAD = "who,age,y\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "bad.csv is empty"),
        (" \n\n", "bad.csv is empty"),
        ('""', "bad.csv is empty"),
        (HEAD, "bad.csv holds no rows"),
        (HEAD + "a,1,0\nb,2\n", "bad.csv, line 3: 2 cells for 3 columns"),
        (HEAD + "a,1,0\nb,2,0,0\n", "bad.csv, line 3: 4 cells for 3 columns"),
        (HEAD + 'a,1,0\n\n"b\nc",2,0\nd,,1\n', "bad.csv, line 6, column 'age': a value is missing: give missing='drop'"),
        (HEAD + "a,1,0\nb,NA,0\n", "bad.csv, line 3, column 'age': a value is missing"),
        (HEAD + "a,1,0\n?,1,0\n", "bad.csv, line 3, column 'who': a value is missing"),
        (HEAD + "a,1,0\nb,inf,0\n", "bad.csv, line 3, column 'age': inf is not finite in float32"),
        (HEAD + "a,1,0\nb,1e39,0\n", "bad.csv, line 3, column 'age': 1e[+]39 is not finite in float32"),
        ("who,age,age,y\na,1,2,0\n", "bad.csv: two columns are called 'age'"),
        ("who,y\na,1\n", "features: .*bad.csv has no column but label and client"),
        (HEAD.encode() + b"a,1,0\nb,\xff,0\n", "bad.csv, line 3: byte 0xff is not UTF-8 text: save the file as UTF-8"),
        ("who,age,y\n".encode("utf-16-le"), "bad.csv, line 1: a NUL byte"),
        (
            HEAD + "".join(f"a,{i}x,0\n" for i in range(101)),
            "column 'age' has 101 different words, for instance '0x' in line 2 of .*bad.csv",
        ),
        (
            HEAD + "".join(f"a,{i},0\n" for i in range(101)) + "a,1O,0\n",
            "column 'age' has 102 different words, for instance '1O' in line 103",
        ),
        (gzip.compress(HEAD.encode(), mtime=0)[:-9], "bad.csv cannot be unpacked"),
    ],
    ids=range(18),
)
def test_the_place_of_a_mistake_is_named(tmp_path, text, message):
    tmp_path.joinpath("bad.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        fl.data.csv(tmp_path / "bad.csv", label="y", client="who")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label": "z"}, "label: .*good.csv has no column 'z'; it has 'who', 'age', 'y'"),
        ({"label": 3}, "label: .*good.csv has no column 3"),
        ({"client": -4}, "client: .*good.csv has no column -4"),
        ({"client": "y"}, "client: 'y' is the label's column of .*good.csv too"),
        ({"features": ["y"]}, "features: 'y' is the label"),
        ({"features": ["age", 1]}, "features: 'age' is twice there"),
        ({"features": []}, "features is empty: give one column at least"),
        ({"features": "age"}, "features must be a list of columns, got 'age'"),
        ({"missing": "skip"}, "missing must be one of 'refuse', 'drop', 'mean', got 'skip'"),
        ({"text": "hash"}, "text must be one of 'one-hot', 'codes', got 'hash'"),
        ({"classes": 1}, "classes=1 admits the labels 0 to 0, .*good.csv has 1"),
        ({"classes": ["0", "2"]}, r"classes: the label '1' in .*good.csv is none of \['0', '2'\]"),
        ({"classes": 0}, "classes must be a whole number of at least 1, or a list of words, got 0"),
        ({"classes": "01"}, "classes must be a whole number of at least 1, or a list of words, got '01'"),
        ({"label": "who", "client": None, "classes": 1}, "classes=1, and the labels in .*good.csv are 2 words, .'a', 'b'."),
        ({"delimiter": "ab"}, "delimiter must be one character, got 'ab'"),
        ({"client": None}, "partition: these files name no clients"),
        ({"test": 1.5}, "test must be a fraction"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_arguments(tmp_path, arguments, message):
    tmp_path.joinpath("good.csv").write_text(HEAD + "a,1,0\na,2,1\nb,2,1\nb,3,0\n" * 2)
    with pytest.raises(ValueError, match=message):
        fl.data.csv(tmp_path / "good.csv", **{"label": "y", "client": "who", **arguments})


def test_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="path='.*nowhere' is not there"):
        fl.data.csv(tmp_path / "nowhere", label="y")
    with pytest.raises(FileNotFoundError, match="is a folder without .csv, .tsv"):
        fl.data.csv(tmp_path, label="y")
    tmp_path.joinpath("a.csv").write_text("x,y\n1,0\n")
    tmp_path.joinpath("b.csv").write_text("x,z\n1,0\n")
    with pytest.raises(DataError, match=r"b.csv has the columns 2 \(x, z\), .*a.csv 2 \(x, y\): make them equal"):
        fl.data.csv(tmp_path, label="y")
    tmp_path.joinpath("b.csv").rename(tmp_path / "a.tsv").write_text("x\ty\n1\t0\n")
    with pytest.raises(DataError, match="two files beside .* are called 'a'"):
        fl.data.csv(tmp_path, label="y")


def test_what_expands_without_bound_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text_pieces, "_FREE", 10_000)
    tmp_path.joinpath("bomb.csv.gz").write_bytes(gzip.compress(b"x,y\n" + b"1,0\n" * 100_000))
    with pytest.raises(DataError, match="bomb.csv.gz unpacks to more than 200 times its [0-9,]+ bytes"):
        fl.data.csv(tmp_path / "bomb.csv.gz", label="y")


def test_a_line_or_a_quote_without_an_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text_pieces, "_LONGEST", 2**17)
    file = tmp_path / "long.csv"
    file.write_text("x,y\n" + "1" * 2**18)
    with pytest.raises(DataError, match="long.csv, line 1 or later: a line begins that is not ended"):
        fl.data.csv(file, label="y")
    file.write_text('x,y\n1,0\n"2,0\n' + "1,0\n" * 2**17)
    with pytest.raises(DataError, match="long.csv, line 1 or later: a quote is opened that is not ended"):
        fl.data.csv(file, label="y")


def test_a_column_without_a_value_among_the_training_examples(tmp_path):
    tmp_path.joinpath("a.csv").write_text("x,z,y\n1,,0\n2,,1\n")
    with pytest.raises(DataError, match="a.csv: no training example has a value of feature 1"):
        fl.data.csv(tmp_path / "a.csv", label="y", missing="mean", partition=fl.partition.iid(clients=1), test=0)
