"""Pieces of numbers parsed by pyarrow, by NumPy, and cell by cell by Python: the same values to the last bit, or the same refusal."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats import delimited, quick_cells
from fedjax_lite.data.formats.delimited import Source
from fedjax_lite.data.formats.text_pieces import Piece

SPELLINGS = """1e5 +3 .5 5. . -0 -0.0 +.5 -.5e-3 1e-400 1e400 -1e400 3.4028235677973366e38 3.4028236e38 1e-46 0.1 16777217
 inf -inf +Infinity nan NaN NAN -nan +nan nan(1) nan() NA na N/A n/a null Null NULL ? 1_000 1_0 0x10 0x1p3 1e 1e+ e5 1d5 1f 1.0.0 -- +-1
 1O true １ ٣ one two
 123456789012345678901234567890 0.3000000000000000166533453693773481063544750213623046875 9007199254740993""".split()
SPELLINGS += [
    "",
    " ",
    " 1",
    "1 ",
    "\t2",
    " NA",
    "NaN ",
    "\u00a01",
    "1\u00a0",
    '"1"',
    '" 1"',
    '"1',
    '1"',
    '"a""b"',
    "'1'",
    " one ",
    "1\x0b",
    "\x1c1",
]
CELLS = (
    st.sampled_from(SPELLINGS)
    | st.floats().map(repr)
    | st.integers(-(10**20), 10**20).map(str)
    | st.text("0123456789+-.eE_xnaif ()", max_size=8)
)
NUMBERS = st.floats(allow_nan=False, width=32).map(repr) | st.integers(-(10**9), 10**9).map(str)
TABLES = st.lists(st.lists(CELLS, min_size=2, max_size=3), min_size=1, max_size=4) | st.lists(
    st.tuples(NUMBERS, CELLS), min_size=1, max_size=4
)


def values(text, delimiter, mode, quick):
    """What becomes of a piece: its values and words, or why it is refused."""
    place: dict[str, float] = {}
    source = Source(Path("t.csv"), ["a", "b"], lambda: iter(()), delimiter)
    coders = {1: delimited._coder(place, '"')} if "text" in mode else {}
    with pytest.MonkeyPatch.context() as patch:
        if quick == "numpy":
            patch.setitem(sys.modules, "pyarrow", None)
        if quick == "none":
            patch.setattr(delimited, "at_once", lambda *_: None)
        try:
            found = delimited._numbers(source, Piece(1, text.encode()), [1, 0], coders, "drop" in mode, (0,) if "fill" in mode else ())
        except (DataError, delimited._IsText) as error:
            return type(error), error.args
    return found.shape, found.tobytes(), place


def check_table(rows, delimiter, mode, end):
    text = "\n".join(delimiter.join(cells) for cells in rows) + end
    ways = [values(text, delimiter, mode, quick) for quick in ("arrow", "numpy", "none")]
    assert ways[0] == ways[2] and ways[1] == ways[2], (text, ways)


MODES = st.sampled_from(["refuse", "drop", "fill", "refuse text", "drop text", "fill text"])
given_tables = given(TABLES, st.sampled_from(",;\t| ·"), MODES, st.sampled_from(["\n", "", "\n\n", "\n \n"]))


@given_tables
@settings(max_examples=50, deadline=None)
def test_the_parsers_agree(rows, delimiter, mode, end):
    check_table(rows, delimiter, mode, end)


@pytest.mark.slow
@given_tables
@settings(max_examples=4_000, deadline=None)
def test_the_parsers_agree_over_many_tables(rows, delimiter, mode, end):
    check_table(rows, delimiter, mode, end)


@pytest.mark.parametrize("mode", ["refuse", "fill", "drop text", "fill text"])
def test_the_parsers_agree_over_each_spelling(mode):
    for cell in SPELLINGS:
        check_table([["1", "2"], [cell, "3"], ["4", cell]], ",", mode, "\n")


def by(quick, text, coders=None, delimiter=","):
    """The values by pyarrow, or without it."""
    with pytest.MonkeyPatch.context() as patch:
        if quick == "numpy":
            patch.setitem(sys.modules, "pyarrow", None)
        return quick_cells.at_once(Piece(1, text.encode()), delimiter, '"', 3, [2, 0], coders or {})


def test_plain_numbers_and_words_are_parsed_at_once():
    for quick in ("arrow", "numpy"):
        found = by(quick, "1,word,2.5\n-3e2,other,4\n")
        assert found.dtype == np.float32 and found.tolist() == [[2.5, 1], [4, -300]]
        found = by(quick, "b;x;2\na;x;4\nb;x;5\n", {0: {"a": 0.0, "b": 1.0}.__getitem__}, ";")
        assert found.tolist() == [[2, 1], [4, 0], [5, 1]]


def test_pyarrow_takes_missing_values_at_once():
    np.testing.assert_array_equal(by("arrow", "1,,2\nNA,,n/a\n"), [[2, 1], [np.nan, np.nan]])
    assert by("numpy", "1,,2\nNA,,n/a\n") is None


@pytest.mark.parametrize("text", ['"1",2,3\n', "1,2,one\n", "1,2\n", "1,2,nan(1)\n"])
def test_other_pieces_are_left_to_a_look_at_each_cell(text):
    found = by("arrow", text)
    assert found is None or text.startswith('"')  # a quoted cell is NumPy's
