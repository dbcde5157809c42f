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
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT

import fedjax_lite as fl
from fedjax_lite import aggregators

PEER = ROOT / "tests" / "support" / "byzfl_peer.py"
STORED = PEER.with_name("byzfl.json")
SLOTS, WIDTH = 11, 5  # room for every input, so that a rule is compiled once; coordinates that are all 0 do not matter

rows = aggregators.from_stack(lambda messages, cohort: messages)  # behind a pre-aggregator: what it makes of the messages

# name -> a function of f. mda alone needs to know it while it is compiled.
RULES = {
    "median": lambda f: aggregators.median(),
    "trimmed_mean": aggregators.trimmed_mean,
    "meamed": aggregators.meamed,
    "krum": lambda f: aggregators.krum(f, neighbors="byzfl"),
    "multi_krum": lambda f: aggregators.multi_krum(f, neighbors="byzfl"),
    "mda": aggregators.mda,
    "monna": lambda f: aggregators.monna(f, trusted=0),
    "geometric_median": lambda f: aggregators.geometric_median(iterations=200, smoothing=1e-6, weights="uniform"),
    "centered_clipping": lambda f: aggregators.centered_clipping(radius=2.0, iterations=3),
    "nnm": lambda f: aggregators.nnm(rows, f),
    "arc": lambda f: aggregators.arc(rows, f),
}


@functools.cache
def compiled(name, f=None):
    """stack, weight, f -> aggregate."""

    def aggregate(stack, weight, traced):
        aggregator = RULES[name](traced if f is None else f)
        cohort = fl.sampling.cohort(jax.random.key(0), jnp.ones(SLOTS, jnp.int32), jnp.arange(SLOTS), weight)
        state = aggregator.init(stack[0])
        return aggregator.finish(aggregator.collect(stack, cohort, state), state, jax.random.key(1))[0]

    return jax.jit(aggregate)


def assert_equal_to(peer, name):
    """All cases of one rule in what the peer wrote."""
    inputs = [np.array(V) for V in peer["inputs"]]
    cases = [case for case in peer["cases"] if case["rule"] == name]
    assert len(cases) >= len(inputs)
    for case in cases:
        V, f = inputs[case["input"]], case["f"]
        stack = np.full((SLOTS, WIDTH), np.nan)
        stack[: len(V)] = np.pad(V, ((0, 0), (0, WIDTH - V.shape[1])))
        with jax.enable_x64(True):
            result = compiled(name, f if name == "mda" else None)(stack, jnp.arange(SLOTS) < len(V), jnp.int32(f))
        output = np.array(case["output"])
        if output.ndim == 2:
            result = result[: len(V)]
        # The last digits of a geometric median are those of how far 200 steps come from either start.
        np.testing.assert_allclose(result[..., : V.shape[1]], output, 1e-9, 1e-9, err_msg=f"{name} n={len(V)} f={f}")


@pytest.mark.parametrize("name", RULES)
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
@pytest.mark.parametrize("name", RULES)
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
