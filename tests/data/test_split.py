"""Each client's own examples are held out: the draw is that of plain NumPy, and nothing of a population is lost on the way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedjax_lite as fl


def population(sizes, **more):
    rows = np.cumsum([0, *sizes])
    clients = [{"x": np.arange(a, b, dtype=np.float32), "deep": {"y": np.arange(a, b)}} for a, b in zip(rows, rows[1:], strict=False)]
    return fl.FederatedData.from_clients(clients, allow_empty=True, **more)


def by_hand(sizes, share, seed):
    """The rows that each client keeps, and those that it holds out."""
    rng, first, kept, held = np.random.default_rng(seed), 0, [], []
    for size in sizes:
        order = rng.permutation(np.arange(first, first + size))
        number = int(np.floor(round(size * share, 9)))
        held.append(order[:number].tolist())
        kept.append(order[number:].tolist())
        first += size
    return kept, held


@pytest.mark.deep
@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.sampled_from([0.1, 0.29, 0.5, 0.99]), st.integers(0, 2**32))
def test_the_draw_is_numpys(sizes, share, seed):
    kept, held = by_hand(sizes, share, seed)
    if not sum(sizes):
        return
    if not any(held):
        with pytest.raises(ValueError, match="holds nothing out, the largest client has"):
            fl.data.split(population(sizes), share, seed=seed)
        return
    parts = fl.data.split(population(sizes), share, seed=seed)
    for part, rows in zip(parts, (kept, held), strict=True):
        assert [part.client(k)["x"].tolist() for k in range(len(sizes))] == rows
        assert part.examples["deep"]["y"].tolist() == [row for each in rows for row in each]


def test_names_and_words_stay_and_nothing_is_held_out_of_zero():
    data = fl.data.table([{"x": [[1.0]], "y": ["cat"]}, {"x": [[2.0], [3.0]], "y": ["dog", "cat"]}]).train
    parts = fl.data.split(data, 0.5)
    assert parts.train.words == parts.test.words == ("cat", "dog")
    named = population([4, 6], names=["ann", "bob"])
    parts = fl.data.split(named)
    assert parts.train.names == parts.test.names == named.names and parts.test.size.tolist() == [0, 1]
    assert fl.data.split(named, 0) == (named, None)


def test_refusals(tmp_path):
    data = population([4, 6])
    for share in (1, -0.1, "half", True, np.nan):
        with pytest.raises(ValueError, match=r"test must be a fraction in \[0, 1\)"):
            fl.data.split(data, share)
    with pytest.raises(TypeError, match="split: data must be a FederatedData in memory, got a Store"):
        fl.data.split(fl.data.save(tmp_path / "store", data))
    with pytest.raises(ValueError, match="data: seed must be a whole number of at least 0"):
        fl.data.split(data, 0.5, seed=-1)
