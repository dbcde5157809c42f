"""Every name of the contract's lists is in a group that a file asks, and what is exported stands in a list."""

from contract.groups import ALGORITHMS, AVERAGES, DISTILLED, DRAWING, QUANTISED, ROTATED, SERVERS, SPARSE, TWO_SIDED
from contract.methods import ASYNCHRONOUS, OPTIMISATION
from contract.personal import PERSONAL
from contract.rules import AGGREGATORS
from contract.works import WORKS

import fedjax_lite as fl
from fedjax_lite import aggregators


def test_every_algorithm_is_asked():
    asked = [f"work {name}" for name in WORKS]
    for group in (SERVERS, AVERAGES, DRAWING, SPARSE, ROTATED, QUANTISED):
        asked += group
    asked += [*DISTILLED, *TWO_SIDED, *OPTIMISATION, *ASYNCHRONOUS, *PERSONAL]
    assert sorted(asked) == sorted(ALGORITHMS)


def test_every_method_of_optimisation_stands_in_the_list():
    """But Scaffnew, which is for all clients alone, and the contract asks for cohorts of some."""
    rooms = {name: getattr(fl.algorithms, name).__module__.split(".")[2] for name in fl.algorithms.__all__}
    methods = {name for name, room in rooms.items() if room in ("optimisation", "asynchronous") and not name.startswith("scale_by_")}
    assert methods - {"scaffnew"} - {name.split(" ")[0] for name in ALGORITHMS} == set()


def test_every_aggregator_stands_in_the_list():
    """But those that make aggregators of functions."""
    listed = {name.split(" ")[0] for name in AGGREGATORS}
    assert {name for name in aggregators.__all__ if name not in ("by_part", "from_stack", "transformed", "padded_size")} - listed == set()
