"""Numbers typed by hand."""

import tomllib
from inspect import unwrap  # bad types must reach our own messages, as they do for users, not beartype's

import numpy as np
import pytest

from fedjax_lite.data import table


def test_a_configuration_file():
    text = """
    [[clients]]
    x = [[0, 1], [1.5, 0]]
    y = [1, 0]
    [[clients]]
    x = [[2, 2]]
    y = [2]
    """
    data = table(tomllib.loads(text)["clients"])
    assert data.test is None
    assert data.train.size.tolist() == [2, 1]
    assert data.train.client(0)["x"].tolist() == [[0, 1], [1.5, 0]]
    assert data.train.examples["x"].dtype == np.float32
    assert data.train.examples["y"].tolist() == [1, 0, 2] and data.train.examples["y"].dtype == np.int32


def test_one_fraction_makes_all_targets_floats():
    data = table([{"x": [[1]], "y": [1]}, {"x": [[2]], "y": [2.5]}])
    assert data.train.examples["y"].dtype == np.float32
    assert data.train.examples["y"].tolist() == [1, 2.5]


def test_several_outputs():
    data = table([{"x": [[1.0], [2.0]], "y": [[1.0, 2.0], [3.0, 4.0]]}])
    assert data.example["y"].shape == (2,)


@pytest.mark.parametrize(
    ("clients", "message"),
    [
        ([], "clients must be a list of one {x, y} a client, got \\[\\]"),
        ({"x": [[1]], "y": [1]}, "clients must be a list of one {x, y} a client"),
        ("clients", "clients must be a list"),
        ([{"x": [[1]]}], r'client 0 must have exactly "x" and "y", got \[\'x\'\]'),
        ([{"x": [[1]], "y": [1], "z": 3}], "client 0 must have exactly"),
        ([[1, 2]], "client 0 must have exactly .* got list"),
        ([{"x": [[1]], "y": [1]}, {"x": [[1, 2], [3]], "y": [1, 2]}], "x of client 1 is ragged: every example needs the same shape"),
        ([{"x": [["a"]], "y": [1]}], "x of client 0 must be a list of numbers, got str"),
        ([{"x": [[1], [2]], "y": ["cat", 1]}], "y of client 0 must be a list of numbers, got str"),
        ([{"x": [[1]], "y": ["cat"]}, {"x": [[1]], "y": [1]}], "y of client 0 holds words, and that of client 1 numbers: make them equal"),
        ([{"x": [[None]], "y": [1]}], "x of client 0 must be a list of numbers, got NoneType"),
        ([{"x": 1, "y": [1]}], "x of client 0 must be a list of numbers"),
        ([{"x": [[10**30]], "y": [1]}], "x of client 0 must be a list of numbers, got integers beyond 64 bits"),
        ([{"x": [], "y": []}], "x of client 0 is empty: give it examples, or drop client 0"),
        ([{"x": [[], []], "y": [1, 2]}], "x of client 0 is empty"),
        ([{"x": [1.0, 2.0], "y": [1, 2]}], r"x must hold one row an example: write \[\[1.0\], \[2.0\]\]"),
        ([{"x": [[1], [2]], "y": [1]}], "client 0 has 2 examples in x and 1 in y: every x needs one y"),
        ([{"x": [[float("nan")]], "y": [1]}], "x of client 0 holds NaN, Inf or a number beyond float32"),
        ([{"x": [[1e300]], "y": [1]}], "x of client 0 holds NaN, Inf or a number beyond float32"),
        ([{"x": [[1]], "y": [2**31]}], "y of client 0 goes from 2147483648 to 2147483648, which does not fit int32"),
        ([{"x": [[1]], "y": [1]}, {"x": [[1, 2]], "y": [1]}], r"example's x has the shape \[2\] at client 1 and \[1\] at client 0"),
        ([{"x": [[1]], "y": [1]}, {"x": [[1]], "y": [[1.0]]}], r"example's y has the shape \[1\] at client 1 and \[\] at client 0"),
    ],
)
def test_bad_tables(clients, message):
    with pytest.raises(ValueError, match=message):
        unwrap(table)(clients)
