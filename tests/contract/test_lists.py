"""Every name of the contract's lists is in a group that a file asks, and what is exported stands in a list."""

import contract

from fedjax_lite import aggregators


def test_every_algorithm_is_asked():
    asked = [f"work {name}" for name in contract.WORKS]
    for group in (contract.SERVERS, contract.AVERAGES, contract.DRAWING, contract.SPARSE, contract.ROTATED, contract.QUANTISED):
        asked += group
    asked += contract.DISTILLED + contract.TWO_SIDED + contract.REPLICAS
    assert sorted(asked) == sorted(contract.ALGORITHMS)


def test_every_aggregator_stands_in_the_list():
    """But those that make aggregators of functions."""
    listed = {name.split(" ")[0] for name in contract.AGGREGATORS}
    assert {name for name in aggregators.__all__ if name not in ("from_stack", "transformed", "padded_size")} - listed == set()
