"""Each cell of a study lies on one map, in the row, the column and under the caption of its values."""

import itertools

import pytest

from fedjax_lite.report.facets import facets


@pytest.mark.parametrize("lengths", [(), (3,), (1, 1), (2, 3), (2, 3, 2), (4, 1, 2, 3)])
def test_every_cell_is_where_its_values_are(lengths):
    axes = {f"axis {i}": [f"{i}{k}" for k in range(length)] for i, length in enumerate(lengths)}
    table = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]  # in the order of a study's table
    seen = []
    for facet in facets(axes):
        for (i, down), (j, along) in itertools.product(*map(enumerate, facet.labels)):
            place = dict(zip(facet.names, (down, along), strict=True)) | dict(x.rsplit(" ", 1) for x in facet.caption.split(", ") if x)
            place.pop("", None)  # no such axis
            assert place == table[facet.cells[i, j]]
            seen.append(facet.cells[i, j])
    assert sorted(seen) == list(range(len(table)))
    assert sorted(map(len, facet.labels)) == sorted([1, 1, *sorted(lengths)][-2:])  # the longest
