"""FederatedData: storage, views and every complaint."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_lite.data import FederatedData
from fedjax_lite.data.arrays import gathered


def client(n, value=0.0, label=0):
    return {"x": np.full((n, 2), value, np.float32), "y": np.full(n, label, np.int32)}


def test_no_padding_is_stored():
    data = FederatedData.from_clients([client(5), client(1), client(3)])
    assert data.examples["x"].shape == (9, 2)
    assert (data.population, data.largest) == (3, 5)
    assert data.start.tolist() == [0, 5, 6]
    assert data.size.tolist() == [5, 1, 3]
    assert data.start.dtype == data.size.dtype == jnp.int32


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_from_arrays_is_a_stable_sort_by_client(ids):
    data = FederatedData.from_arrays({"row": np.arange(len(ids))}, ids, allow_empty=True)
    assert data.population == max(ids) + 1
    for i in range(data.population):
        assert data.client(i)["row"].tolist() == [row for row, owner in enumerate(ids) if owner == i]


def test_from_arrays_equals_from_clients():
    a = FederatedData.from_clients([client(2, 1.0), client(3, 2.0)])
    x = np.array([[2.0, 2.0], [1.0, 1.0], [2.0, 2.0], [1.0, 1.0], [2.0, 2.0]])
    b = FederatedData.from_arrays({"x": x, "y": np.zeros(5, int)}, [1, 0, 1, 0, 1])
    assert a.fingerprint() == b.fingerprint()


def test_types_become_those_of_jax():
    data = FederatedData.from_clients([{"f": np.ones(2), "i": np.ones(2, int), "u": np.ones(2, np.uint8), "b": np.ones(2, bool)}])
    assert {name: str(leaf.dtype) for name, leaf in data.examples.items()} == {"f": "float32", "i": "int32", "u": "uint8", "b": "bool"}


def test_the_callers_array_is_copied():
    x = np.ones((2, 3), np.float32)
    data = FederatedData.from_clients([{"x": x}])
    x[:] = 7
    assert data.examples["x"].max() == 1


def test_gathered_rows_are_handed_to_jax_without_a_copy():
    x, rows = np.arange(3000, dtype=np.float32).reshape(1000, 3), np.random.default_rng(0).permutation(1000)
    copy = gathered(x, rows)
    np.testing.assert_array_equal(copy, x[rows])
    assert copy.ctypes.data % 64 == 0
    if jax.default_backend() == "cpu":
        assert np.shares_memory(np.asarray(jax.device_put(copy)), copy)


def test_any_pytree_will_do():
    data = FederatedData.from_clients([(np.ones(2), [np.zeros((2, 1))])])
    assert isinstance(data.examples, tuple)
    assert data.example[0].shape == ()


def test_it_passes_through_jit():
    data = FederatedData.from_clients([client(2, 1.0), client(3, 2.0)])
    total, largest = jax.jit(lambda d: (d.examples["x"].sum(), jnp.int32(d.largest)))(data)
    assert (total, largest) == (16, 3)


def test_client_and_example():
    data = FederatedData.from_clients([client(2, 1.0, 3), client(1, 2.0, 4)])
    assert data.client(1)["x"].tolist() == [[2.0, 2.0]]
    assert data.example["y"] == 3
    for id in (-1, 2):
        with pytest.raises(ValueError, match=rf"id must be in \[0, 2\), got {id}"):
            data.client(id)


def test_take_is_compact_and_ordered():
    data = FederatedData.from_clients([client(4, 0.0), client(1, 1.0), client(2, 2.0)])
    part = data.take([2, 1, 2])
    assert part.examples["x"][:, 0].tolist() == [2, 2, 1, 2, 2]
    assert (part.size.tolist(), part.start.tolist(), part.largest) == ([2, 1, 2], [0, 2, 3], 2)
    assert data.take(range(3)).fingerprint() == data.fingerprint()


@pytest.mark.parametrize("ids", [[], [3], [-1]])
def test_take_names_bad_ids(ids):
    with pytest.raises(ValueError, match=r"ids must name at least one client in \[0, 3\)"):
        FederatedData.from_clients([client(1)] * 3).take(ids)


def test_take_of_empty_clients():
    data = FederatedData.from_clients([client(0), client(2)], allow_empty=True)
    assert data.take([0]).examples["x"].shape == (0, 2)


def test_fingerprint_sees_every_byte():
    clients = [client(3, 1.0, 1), client(2, 2.0, 2)]
    base = FederatedData.from_clients(clients).fingerprint()
    assert base["clients"] == 2 and base["examples"] == 5
    assert base == FederatedData.from_clients(clients).fingerprint()
    seen = {base["sha256"]}
    for name in ("x", "y"):
        flat = clients[1][name].view(np.uint8).reshape(-1)
        for i in range(flat.size):
            flat[i] ^= 1
            seen.add(FederatedData.from_clients(clients).fingerprint()["sha256"])
            flat[i] ^= 1
    assert len(seen) == 1 + 2 * 2 * 4 + 2 * 4
    moved = FederatedData.from_clients([client(2), client(3)]), FederatedData.from_clients([client(3), client(2)])
    assert moved[0].fingerprint() != moved[1].fingerprint()


def test_fingerprint_of_other_types():
    data = [FederatedData.from_clients([{"x": np.ones(3, dtype)}]) for dtype in (jnp.bfloat16, np.float16, np.int8, bool)]
    assert len({d.fingerprint()["sha256"] for d in data}) == 4


def test_summary_counts():
    text = FederatedData.from_clients([client(4, label=1), client(1, label=3), client(3, label=1)]).summary()
    assert "3 clients, 8 examples; examples a client: min 1, median 3, mean 2.7, max 4" in text
    assert "x: float32[2]" in text
    assert "labels: 2 classes of 1 to 7 examples; 1.0 classes a client" in text


def test_summary_without_labels_or_with_negative_ones():
    assert "labels" not in FederatedData.from_clients([{"x": np.ones((2, 3))}]).summary()
    assert "labels" not in FederatedData.from_clients([{"y": np.ones(2)}]).summary()
    assert "2 classes of 1 to 1" in FederatedData.from_clients([{"y": np.array([-1, 1])}]).summary()


def test_empty_clients_are_admitted_only_on_demand():
    clients = [client(1), client(0), client(0)]
    with pytest.raises(ValueError, match=r"client 1 has no examples \(2 of 3 clients have none\): drop it, or pass allow_empty=True"):
        FederatedData.from_clients(clients)
    assert FederatedData.from_clients(clients, allow_empty=True).size.tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="no client has an example: give one client some at least"):
        FederatedData.from_clients(clients[1:], allow_empty=True)
    assert FederatedData.from_arrays({"x": np.ones(1)}, [0], population=3, allow_empty=True).size.tolist() == [1, 0, 0]


def test_an_untyped_empty_client_changes_no_type():
    data = FederatedData.from_clients([{"x": [], "y": np.array([])}, {"x": [], "y": np.array([1, 2])}], allow_empty=True)
    assert data.examples["y"].dtype == jnp.int32


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_name_leaf_and_client(bad):
    clients = [{"x": np.zeros((2, 2))}, {"x": np.array([[0.0, 0.0], [0.0, bad]])}]
    with pytest.raises(ValueError, match=r"leaf \['x'\] of client 1 holds NaN or Inf \(1 such examples\): clean"):
        FederatedData.from_clients(clients)


def test_nan_in_bfloat16_is_seen():
    with pytest.raises(ValueError, match="client 0 holds NaN"):
        FederatedData.from_clients([{"x": np.array([1.0, np.nan], jnp.bfloat16)}])


def test_labels_out_of_range():
    clients = [client(2, label=0), client(2, label=5)]
    assert FederatedData.from_clients(clients, classes=6).population == 2
    with pytest.raises(ValueError, match=r"label 5 of client 1 is out of range: classes=5 admits 0\.\.4 \(2 such examples\)"):
        FederatedData.from_clients(clients, classes=5)
    with pytest.raises(ValueError, match="label -1 of client 0"):
        FederatedData.from_clients([client(1, label=-1)], classes=5)


@pytest.mark.parametrize(
    ("clients", "message"),
    [
        ([], "clients is empty: a population needs at least one client"),
        ([{}], "client 0 holds no arrays"),
        ([{"x": np.ones((2, 2)), "y": np.ones(3)}], r"client 0: leaves must be arrays of one length, got .*2.*3"),
        ([{"x": np.float32(1)}], "client 0: leaf .* is a single number"),
        ([{"x": [1.0, 2.0]}], "client 0: leaf .* is a single number, not an array of examples: wrap lists in np.array"),
        ([{"x": np.ones(2)}, {"z": np.ones(2)}], "client 1 has the structure"),
        (
            [{"x": np.ones((1, 2))}, {"x": np.ones((1, 3))}],
            r"leaf \['x'\] holds float64\[3\] an example at client 1 and float64\[2\] at client 0",
        ),
        ([{"y": np.ones(1, int)}, {"y": np.ones(1)}], r"leaf \['y'\] holds float64\[\] an example at client 1 and int64"),
        ([{"x": np.array(["a", "b"])}], r"leaf \['x'\] holds <U1, not numbers"),
        ([{"x": np.array([None, {}])}], r"leaf \['x'\] holds object, not numbers"),
        ([{"x": np.array([2**40])}], r"leaf \['x'\] holds 1099511627776\.\.1099511627776, which does not fit int32"),
        ([{"x": np.array([-(2**63)])}], "does not fit int32"),
    ],
)
def test_bad_clients(clients, message):
    with pytest.raises(ValueError, match=message):
        FederatedData.from_clients(clients)


@pytest.mark.parametrize(
    ("ids", "population", "message"),
    [
        ([0, 1], None, r"client_ids has the shape \(2,\), the arrays hold 3 examples"),
        ([0.0, 1.0, 1.0], None, "client_ids must be integers, got float64: use np.unique"),
        ([0, 1, 2], 2, r"client_ids must be in \[0, 2\), got 0\.\.2"),
        ([0, -1, 0], None, r"got -1\.\.0"),
        ([0, 2, 2], None, "client 1 has no examples"),
    ],
)
def test_bad_client_ids(ids, population, message):
    with pytest.raises(ValueError, match=message):
        FederatedData.from_arrays({"x": np.ones(3)}, ids, population=population)


def test_no_examples_at_all():
    with pytest.raises(ValueError, match="arrays hold no examples"):
        FederatedData.from_arrays({"x": np.ones(0)}, np.zeros(0, int))


def test_masked_values_do_not_come_back():
    x = np.ma.masked_equal(np.array([[1.0, -9], [2, 3]]), -9)
    for make in (lambda x: FederatedData.from_clients([{"x": x}]), lambda x: FederatedData.from_arrays({"x": x}, [0, 0])):
        with pytest.raises(ValueError, match=r"(client 0|arrays): leaf \['x'\] is a masked array, of which 1 are masked: drop or fill"):
            make(x)
        assert make(np.ma.masked_array([[1.0, 2], [3, 4]])).examples["x"].tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match="client_ids: leaf the array is a masked array"):
        FederatedData.from_arrays({"x": np.ones(2)}, np.ma.masked_equal([0, 1], 1))


def test_structured_arrays_and_words_are_refused():
    with pytest.raises(ValueError, match=r"client 0: leaf \['x'\] has the fields a, b: make each a leaf of its own"):
        FederatedData.from_clients([{"x": np.zeros(2, [("a", "f4"), ("b", "i4")])}])
    with pytest.raises(ValueError, match="not numbers: make it an array of numbers, of words for instance np.unique"):
        FederatedData.from_clients([{"x": np.zeros(2), "y": np.array(["cat", "dog"])}])


@pytest.mark.parametrize("highest", [2**40, 10**8])
def test_ids_that_leave_most_clients_empty_are_to_be_numbered(highest):
    ids = np.array([3, highest, 3])
    with pytest.raises(ValueError, match=rf"client_ids go up to {highest}, of 3 examples, .*: number them by np.unique"):
        FederatedData.from_arrays({"x": np.ones(3)}, ids)
    assert FederatedData.from_arrays({"x": np.ones(3)}, np.unique(ids, return_inverse=True)[1]).size.tolist() == [2, 1]
