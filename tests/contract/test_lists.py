"""Every name of the contract's lists is in a group that a file asks, and what is exported stands in a list."""

import contract

import fedjax_lite as fl
from fedjax_lite import aggregators


def test_every_algorithm_is_asked():
    asked = [f"work {name}" for name in contract.WORKS]
    for group in (contract.SERVERS, contract.AVERAGES, contract.DRAWING, contract.SPARSE, contract.ROTATED, contract.QUANTISED):
        asked += group
    asked += [*contract.DISTILLED, *contract.TWO_SIDED, *contract.OPTIMISATION, *contract.ASYNCHRONOUS, *contract.PERSONAL]
    assert sorted(asked) == sorted(contract.ALGORITHMS)


def test_every_method_of_optimisation_stands_in_the_list():
    """But Scaffnew, which is for all clients alone, and the contract asks for cohorts of some."""
    rooms = {name: getattr(fl.algorithms, name).__module__.split(".")[2] for name in fl.algorithms.__all__}
    methods = {name for name, room in rooms.items() if room in ("optimisation", "asynchronous") and not name.startswith("scale_by_")}
    assert methods - {"scaffnew"} - {name.split(" ")[0] for name in contract.ALGORITHMS} == set()


def test_every_aggregator_stands_in_the_list():
    """But those that make aggregators of functions."""
    listed = {name.split(" ")[0] for name in contract.AGGREGATORS}
    assert {name for name in aggregators.__all__ if name not in ("by_part", "from_stack", "transformed", "padded_size")} - listed == set()
