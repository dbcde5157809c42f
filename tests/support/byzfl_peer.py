"""What the package byzfl computes for seeded inputs, as JSON: `python tests/support/byzfl_peer.py OUT.json [SEED]`.

With seed 0 it writes `tests/support/byzfl.json`, against which the rules are tested where byzfl is not installed. To be run in a process
of its own, because byzfl imports torch also where it computes with NumPy: an empty module stands in for torch, and byzfl's own
`__init__`, which imports all of its benchmark, is passed over. So `pip install --no-deps byzfl`, NumPy and SciPy are enough.
"""

import importlib.util
import json
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np

SHAPES = (4, 4), (7, 3), (8, 3), (11, 5)  # n, d


def modules():
    """byzfl's aggregators and pre-aggregators."""
    torch = ModuleType("torch")
    torch.Tensor, torch.linalg = type("Tensor", (), {}), ModuleType("torch.linalg")
    sys.modules |= {"torch": torch, "torch.linalg": torch.linalg}
    root = Path(importlib.util.find_spec("byzfl").origin).parent
    for name in ("", "aggregators", "utils"):
        package = ModuleType(f"byzfl.{name}".rstrip("."))
        package.__path__ = [str(root / name)]
        sys.modules[package.__name__] = package
    return (importlib.import_module(f"byzfl.aggregators.{name}") for name in ("aggregators", "preaggregators"))


def inputs(seed):
    """Messages `[n, d]` with few digits, one of them far away."""
    rng = np.random.default_rng(seed)
    for n, d in SHAPES:
        V = rng.normal(size=(n, d))
        V[rng.integers(n)] *= 30
        yield np.round(V, 3)


def cases(seed):
    """Each with the name and the arguments that fedjax_lite gives the rule."""
    aggregators, pre = modules()
    rules = {
        "median": lambda f: aggregators.Median(),
        "trimmed_mean": aggregators.TrMean,
        "meamed": aggregators.Meamed,
        "krum": aggregators.Krum,
        "multi_krum": aggregators.MultiKrum,
        "mda": aggregators.MDA,
        "monna": lambda f: aggregators.MoNNA(f, 0),
        "geometric_median": lambda f: aggregators.GeometricMedian(nu=1e-6, T=200),
        "centered_clipping": lambda f: aggregators.CenteredClipping(L=3, tau=2.0),
        "nnm": pre.NNM,
        "arc": pre.ARC,
    }
    for number, V in enumerate(inputs(seed)):
        for name, rule in rules.items():
            without_f = name in ("median", "geometric_median", "centered_clipping")
            for f in range(1 if without_f else (len(V) - 1) // 2 + 1):
                # A copy, since some write into what they are given; a new object, since some remember.
                output = np.asarray(rule(f)(V.copy()))
                yield {"rule": name, "f": f, "input": number, "output": output.tolist()}


if __name__ == "__main__":
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    found = [json.dumps(case) for case in cases(seed)]
    head = [f'"byzfl": "{version("byzfl")}"', f'"inputs": {json.dumps([V.tolist() for V in inputs(seed)])}']
    Path(sys.argv[1]).write_text("{" + ",\n".join([*head, '"cases": [\n' + ",\n".join(found) + "\n]"]) + "}\n")
