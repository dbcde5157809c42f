"""The sheet of partitions in the docs shows all of them."""

import runpy

from conftest import ROOT

import fedjax_lite as fl


def test_every_partition_is_drawn():
    drawn = runpy.run_path(str(ROOT / "docs" / "pictures" / "partitions.py"))["PARTITIONS"]
    assert set(drawn) == set(fl.partition.__all__) - {"dirichlet_class", "Partition"}
    names = (ROOT / "docs" / "pictures" / "partitions.svg").read_text()
    assert all(f">{name}</text>" in names for name in drawn)
