"""study.json: what is saved is read back as it was, and a damaged file is one error that names it."""

import copy
import json
import re

import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.study.grid import Axis


@pytest.fixture
def saved(tmp_path):
    """The folder of a study with every kind of label and result."""
    axes = (Axis(("rate", "name"), ((0.1, "nan"), (np.inf, "-inf"), (2, "x"))), Axis(("flag",), ((True,), ("inf",))))
    values = np.random.default_rng(0).normal(size=(3, 2, 2, 2)).astype(np.float32)
    values[0, 0, 0] = np.nan, -np.inf
    results = {
        "loss": values,
        "norm": values[..., 0].astype(jnp.bfloat16),
        "count": np.arange(12).reshape(3, 2, 2),
        "done": values[..., 1] > 0,
    }
    study = fl.Study(axes, (3, 1), results, {"loss": (5, 10)}, 2, {"norm": (1, 5)}, {"date": "2026", "code": {"jax": "1"}})
    return study, study.save(tmp_path / "study")


def test_a_study_is_read_back_as_it_was(saved):
    study, folder = saved
    again = fl.Study.load(folder)
    assert again._replace(results={}) == study._replace(results={})
    assert [type(value) for axis in again.axes for row in axis.rows for value in row] == [float, str, float, str, int, str, bool, str]
    for name, x in study.results.items():
        assert (again.results[name].dtype, again.results[name].shape) == (x.dtype, x.shape) and again.results[name].tobytes() == x.tobytes()


DAMAGED = {
    "a list": ([], [], r"the whole must be a table, got \[\]"),
    "no axes": (["axes"], None, "axes must be a list, got None"),
    "a number for a list": (["axes", 1, "rows"], 3, r"axes\[1\].rows must be a list, got 3"),
    "a row": (["axes", 0, "rows", 2], [1], r"axes\[0\].rows\[2\] must have a value for each of"),
    "a label": (["axes", 1, "rows", 0], [None], r"axes\[1\].rows\[0\] must hold numbers and texts, got None"),
    "a name": (["axes", 1, "names"], ["rate"], r"axes must have different names"),
    "a seed": (["seeds", 1], "4", r"seeds\[1\] must be a whole number from 0 on, got '4'"),
    "a type": (["types", "loss"], "float33", "types.loss must be a type of numbers.*got 'float33'"),
    "another type": (["types", "loss"], "int32", "results.loss must be of the type int32"),
    "too large": (["results", "norm", 2, 1, 0], 1e300, "results.norm must be of the type bfloat16"),
    "no number": (["results", "loss", 2, 1, 0], ["a", 1.0], r"results.loss\[2\]\[1\]\[0\]\[0\] must be a number"),
    "ragged": (["results", "norm", 2], [[1.0, 2.0]], r"results.norm\[2\] must have 2 values, got 1"),
    "a cell": (["lacking", "norm"], [6], r"lacking.norm\[0\] must be a whole number from 0 on and below 6, got 6"),
    "no result": (["rounds", "x"], [1], "results has no 'x'"),
    "no type": (["types"], {}, "types must be one for each of the results"),
}


@pytest.mark.parametrize("place, value, message", DAMAGED.values(), ids=DAMAGED)
def test_what_is_damaged_is_named(saved, place, value, message):
    path = saved[1] / "study.json"
    holder = whole = {"": json.loads(path.read_text())}
    for key in ["", *place][:-1]:
        holder = holder[key]
    holder[["", *place][-1]] = value
    path.write_text(json.dumps(whole[""]))
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} is damaged: {message}"):
        fl.Study.load(saved[1])


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b'{"a": "\x01"}', b"[" * 100_000, b'{"axes": NaN}'])
def test_what_is_no_json_is_named(saved, text):
    path = saved[1] / "study.json"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} is not the JSON of a study: "):
        fl.Study.load(saved[1])


def damaged(rng, text):
    """A study's text with a few bytes or one of its values changed."""
    if rng.random() < 0.4:
        raw, place = bytearray(text.encode()), rng.integers(len(text))
        how = rng.integers(3)
        raw[place : [len(raw), place + 1, place + 4][how]] = rng.bytes(rng.integers(3)) if how else b""
        return bytes(raw)
    said = copy.deepcopy(json.loads(text))
    holder, key = {"": said}, ""
    while isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.8:
        holder = holder[key]
        key = list(holder)[rng.integers(len(holder))] if isinstance(holder, dict) else int(rng.integers(len(holder)))
    others = (None, True, 3, -1, 1.5, 1e300, 10**400, "x", "nan", [], {}, [[1]], {"number": "inf"}, {"number": []}, "float16", [0, 0])
    if key and rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = others[rng.integers(len(others))]
    return json.dumps(said if key != "" else holder[""]).encode()


def test_whatever_is_damaged_there_is_one_error_with_the_file_or_a_study(saved):
    path = saved[1] / "study.json"
    text, rng, refused = path.read_text(), np.random.default_rng(0), 0
    for _ in range(200):
        path.write_bytes(damaged(rng, text))
        try:
            study = fl.Study.load(saved[1])
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{path} is ") and "\n" not in str(error) and len(str(error)) < 300 + len(str(path))
        else:
            tables = {metric: study.table(metric) for metric in study.results}
            assert all(len(table) == study.final(metric)[..., 0].size for metric, table in tables.items())
    assert refused > 100
