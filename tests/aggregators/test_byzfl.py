"""Rules against the package byzfl where the two define the same: against its stored numbers, and live where it is installed.

Left out, because byzfl's own results vary or differ by design: CAF (one power iteration from a random start; beside a far outlier it
does not end), bucketing (drawn from the global generator), Krum with the paper's neighbours."""

import functools
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import ROOT
from robust_rules import (
    SLOTS,
    TRUSTED_FIRST,
)
from robust_trials import (
    of_rows,
    padded,
    seen_behind,
)

from fedjax_lite import aggregators

PEER = ROOT / "tests" / "support" / "byzfl_peer.py"
STORED = PEER.with_name("byzfl.json")

# byzfl's name -> ours: a row of the list, or a pre-aggregator, of which it is compared what it makes of the messages.
NAMES = {name: name for name in ("median", "trimmed_mean", "meamed", "mda", "monna")} | {
    "krum": "krum byzfl",
    "multi_krum": "multi_krum byzfl",
    "geometric_median": "geometric_median exact",
    "centered_clipping": "centered_clipping 3",
    "nnm": aggregators.nnm,
    "arc": aggregators.arc,
}
each_name = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(row if isinstance(row, str) else name)) for name, row in NAMES.items()]
)


def ours(name, V, f):
    """What the library makes of the messages."""
    row = NAMES[name]
    if isinstance(row, str):
        return of_rows(row, V, f)
    with jax.enable_x64(True):
        changed = seen_behind(row)(padded(V), TRUSTED_FIRST, np.arange(SLOTS) < len(V), np.int32(f))
    return np.asarray(changed)[: len(V), : V.shape[1]]


def assert_equal_to(peer, name):
    """All cases of one rule in what the peer wrote."""
    inputs = [np.array(V) for V in peer["inputs"]]
    cases = [case for case in peer["cases"] if case["rule"] == name]
    assert len(cases) >= len(inputs)
    for case in cases:
        V, f = inputs[case["input"]], case["f"]
        # The last digits of a geometric median are those of how far 200 steps come from one start and 300 from another.
        np.testing.assert_allclose(ours(name, V, f), np.array(case["output"]), 1e-9, 1e-9, err_msg=f"{name} n={len(V)} f={f}")


@each_name
def test_rules_give_the_numbers_of_byzfl(name):
    assert_equal_to(json.loads(STORED.read_text()), name)


@functools.cache
def live(seed):
    """What the installed byzfl computes; in a process of its own, for it is given a torch that is none."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "byzfl.json"
        subprocess.run([sys.executable, PEER, out, str(seed)], check=True)
        return json.loads(out.read_text())


@pytest.mark.skipif(importlib.util.find_spec("byzfl") is None, reason="no byzfl: pip install --no-deps byzfl (no torch needed)")
@each_name
def test_rules_equal_the_installed_byzfl(name):
    for seed in range(1, 4):
        assert_equal_to(live(seed), name)


@pytest.mark.skipif(importlib.util.find_spec("byzfl") is None, reason="no byzfl: pip install --no-deps byzfl (no torch needed)")
def test_the_stored_numbers_are_those_of_the_installed_byzfl():
    stored, now = json.loads(STORED.read_text()), live(0)
    assert stored["inputs"] == now["inputs"] and len(stored["cases"]) == len(now["cases"])
    for before, after in zip(stored["cases"], now["cases"], strict=True):
        assert {**before, "output": None} == {**after, "output": None}
        np.testing.assert_allclose(before["output"], after["output"], 1e-12, 1e-12)
