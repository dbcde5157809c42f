"""What no study can be made of is refused before anything runs, with the name, the value and the cell."""

import functools
import math

import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lite as fl

study = functools.partial(fl.study, progress=False)

REFUSED = {
    "name": ({"ratee": [1.0]}, {}, r"grid does not fit the experiment\(key, rate=.*\): got an unexpected keyword argument 'ratee'"),
    "key": ({"key": [1.0]}, {}, r"must be that of an argument beside the key.*'key'"),
    "column": ({"mean": [1.0]}, {}, r"not of a table's column, got 'mean'"),
    "empty": ({"rate": []}, {}, r"grid\['rate'\] is empty: give at least one value"),
    "number": ({"rate": 0.1}, {}, r"grid\['rate'\] must be a sequence of values, got 0.1"),
    "text": ({"rate": "0.1"}, {}, r"grid\['rate'\] must be a sequence of values, got '0.1'"),
    "scalar": ({"rate": np.float32(1)}, {}, r"grid\['rate'\] must be a sequence"),
    "nan": ({"rate": [1.0, math.nan]}, {}, r"grid\['rate'\] has the value nan"),
    "twice": ({"rate": [1.0, 1.0]}, {}, r"grid\['rate'\] has 1 twice"),
    "same text": ({"rate": [jnp.ones(2), jnp.ones(2)]}, {}, r"twice; values that read alike need a dict label -> value"),
    "two axes": ({"rate": [1.0], ("rate", "name"): [(1.0, "a")]}, {}, r"grid has 'rate' twice"),
    "rows": ({("rate", "name"): [(1.0,)]}, {}, r"needs rows of 2 values, got \(1.0,\)"),
    "labelled rows": ({("rate", "name"): {"a": (1.0, "a")}}, {}, r"must be a sequence of values"),
    "no seeds": ({}, {"seeds": 0}, r"seeds must be a number of at least 1, .* got 0"),
    "seeds": ({}, {"seeds": [1, 1]}, r"different whole numbers from 0 to 2\^31 - 1, got \[1, 1\]"),
    "seed": ({}, {"seeds": [-1]}, r"seeds must be .* got \[-1\]"),
    "truth": ({}, {"seeds": True}, r"seeds must be .* got True"),
    "together": ({}, {"together": 0}, r"together must be a whole number of at least 1, got 0"),
    "every": ({}, {"every": 0}, r"every must be a whole number of at least 1, got 0"),
    "rounds": ({}, {"rounds": 2.0}, r"rounds must be a whole number of at least 1, got 2.0"),
    "half a seed": ({}, {"seeds": 1.5}, r"seeds must be a number of at least 1, .* got 1.5"),
    "no seed": ({}, {"seeds": None}, r"seeds must be .* got None"),
    "text of seeds": ({}, {"seeds": "12"}, r"seeds must be .* got '12'"),
    "a point every ten": (
        {"name": ["curve"]},
        {"every": 10},
        r"with every=10 the curve 'x' of 3 points would end at round 30: say rounds=30 if it does, or leave every out",
    ),
    "other rounds": ({"name": ["curve"]}, {"every": 10, "rounds": 200}, r"curve 'x' has 3 points, which does not fit rounds=200 and every"),
    "no whole step": ({"name": ["curve"]}, {"rounds": 10}, r"curve 'x' has 3 points, which does not fit rounds=10$"),
    "keys": (
        {"name": ["a", "other"]},
        {},
        r"results in the cell name=other are y float32\[\], in the cell name=a x float32\[\]: make them the same",
    ),
    "shapes": ({"name": ["a", "curve"]}, {}, r"in the cell name=curve are x float32\[3\], in the cell name=a x float32\[\]"),
    "no dict": ({"name": ["array"]}, {}, r"must return a dict of results by name, got .*; in the cell name=array"),
    "nothing": ({"name": ["nothing"]}, {}, r"must return a dict of results by name, got dict"),
    "matrix": (
        {"name": ["matrix"]},
        {},
        r"result 'x' must be a number or a curve \[rounds\], got float32\[2, 2\]; in the cell name=matrix",
    ),
    "nested": ({"name": ["nested"]}, {}, r"result 'x' must be a number or a curve \[rounds\], got dict"),
    "complex": ({"name": ["complex"]}, {}, r"result 'x' must be a number or a curve \[rounds\], got complex64"),
}


@pytest.mark.parametrize("grid, options, message", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(grid, options, message):
    returns = {"other": {"y": 1.0}, "curve": {"x": jnp.ones(3)}, "array": jnp.ones(3), "nothing": {}, "matrix": {"x": jnp.ones((2, 2))}}
    returns |= {"nested": {"x": {"y": 1.0}}, "complex": {"x": jnp.complex64(1)}}
    with pytest.raises(ValueError, match=message):
        study(lambda key, rate=1.0, name="a": returns.get(name, {"x": rate}), grid, **options)


def test_an_error_of_another_type_says_in_which_cell():
    with pytest.raises(TypeError) as raised:
        study(lambda key, name: {"x": jnp.sin(name)}, {"name": ["a"]})
    assert "in the study's cell name=a" in raised.value.__notes__
