"""ARFF files as people write them, by hand."""

import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.data import DataError

WEATHER = """% a comment with an apostrophe: Weka's
@RELATION  'the weather'

@attribute outlook {sunny, 'over cast' ,rainy}
  @ATTRIBUTE "wind speed"
@attribute temperature REAL
@attribute play { yes,no }
@Data
% another
sunny, 2, 85.5, no

'over cast',3,83, yes
rainy,?,70,yes
"""
ONE = {"partition": lambda rng, y: [np.arange(len(y))], "test": 0, "standardise": False}


def write(folder, text, name="weather.arff"):
    folder.joinpath(name).write_text(text)
    return folder / name


def test_a_forgiving_header(tmp_path):
    data = fl.data.arff(write(tmp_path, WEATHER), missing="drop", text="codes", **ONE)
    assert data.words == ("yes", "no")  # as declared, not as text
    assert data.train.examples["x"].tolist() == [[0, 2, 85.5], [1, 3, 83]] and data.train.examples["y"].tolist() == [1, 0]
    filled = fl.data.arff(tmp_path / "weather.arff", missing="mean", features=["wind speed", "outlook"], **ONE)
    assert filled.train.examples["x"].tolist() == [[2, 1, 0, 0], [3, 0, 1, 0], [2.5, 0, 0, 1]]


def test_clients_and_numbers(tmp_path):
    for name in ("ann", "bob"):
        write(tmp_path, "@relation r\n@attribute x numeric\n@attribute y\n@data\n1\t0.5\n2\t1\n", f"{name}.arff")
    data = fl.data.arff(tmp_path, label="y", test=0, standardise=False)
    assert data.names == ("ann", "bob") and data.train.examples["y"].tolist() == [0.5, 1, 0.5, 1] and data.words is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@Data", "", "weather.arff, line 10: 'sunny, 2, 85.5, no' is neither @relation, @attribute nor @data"),
        (WEATHER[WEATHER.index("@Data") :], "", "weather.arff has no line @data"),
        ("{ yes,no }", "{ yes,no ", "weather.arff, line 7: '{ yes,no' does not end with }"),
        ("{ yes,no }", "{ yes,yes }", "weather.arff, line 7: .* must be different words"),
        ("rainy,?,70,yes", "{0 rainy, 3 yes}", "weather.arff, line 13: a row is written sparsely"),
        ("rainy,?,70,yes", "rainy,1,70", "weather.arff, line 13: 3 cells for 4 columns"),
        ("rainy,?,70,yes", "rainy,?,70,yes", "weather.arff, line 13, column 'wind speed': a value is missing"),
        ("rainy,?,70,yes", "rainy,1,70,maybe", "column 'play' of .*weather.arff.* holds 'maybe', which is not declared"),
    ],
)
def test_the_place_of_a_mistake_is_named(tmp_path, old, new, message):
    assert WEATHER.count(old) == 1
    with pytest.raises(DataError, match=message):
        fl.data.arff(write(tmp_path, WEATHER.replace(old, new)), **ONE)


def test_files_that_declare_other_words(tmp_path):
    write(tmp_path, WEATHER, "a.arff")
    write(tmp_path, WEATHER.replace("yes,no", "no,yes"), "b.arff")
    with pytest.raises(DataError, match="b.arff declares other words than .*a.arff"):
        fl.data.arff(tmp_path)
