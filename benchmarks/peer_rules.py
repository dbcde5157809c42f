"""The contender of `aggregators.py`: the same rules by byzfl (on NumPy and on PyTorch) and written out in NumPy.

For every line on its standard input, "PROGRAM: RULE", it applies that rule once and prints {"seconds", "norm"}: of the aggregate, which
tells whether programs agree; for a pair that it lacks {}. Needs `pip install torch==2.13.0 numpy scipy` and `pip install --no-deps
byzfl==0.0.11`: byzfl's own `__init__` imports all of its benchmark, torchvision too, and is passed over.
"""

import argparse
import importlib.util
import json
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from rules import BOUND, TRUSTED, F, messages


def byzfl():
    """byzfl's aggregators and pre-aggregators, by the names used here; but its NNM, which gathers n (n-f) messages, here 30 GB."""
    root = Path(importlib.util.find_spec("byzfl").origin).parent
    for name in ("byzfl", "byzfl.aggregators", "byzfl.utils"):
        package = ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    rules, pre = (importlib.import_module(f"byzfl.aggregators.{name}") for name in ("aggregators", "preaggregators"))
    return {
        "mean": lambda V: rules.Average()(V),
        "median": lambda V: rules.Median()(V),
        "trimmed_mean": lambda V: rules.TrMean(F)(V),
        "meamed": lambda V: rules.Meamed(F)(V),
        "krum": lambda V: rules.Krum(F)(V),
        "multi_krum": lambda V: rules.MultiKrum(F)(V),
        "geometric_median": lambda V: rules.GeometricMedian(nu=1e-6, T=8)(V),
        "centered_clipping": lambda V: rules.CenteredClipping(L=1, tau=BOUND)(V),
        "monna": lambda V: rules.MoNNA(F, TRUSTED)(V),
        "caf": lambda V: rules.CAF(F)(V),
        "arc": lambda V: rules.Average()(pre.ARC(F)(V)),
        "bucketing": lambda V: rules.Average()(pre.Bucketing(2)(V)),
        "norm_bounding": lambda V: rules.Average()(pre.Clipping(BOUND)(V)),
    }


# In NumPy, as a person writes them who knows its fast paths: whole arrays, products by BLAS, selection instead of sorting.


def distances(V):
    squares = np.einsum("nd,nd->n", V, V)
    return np.maximum(squares[:, None] + squares[None] - 2 * V @ V.T, 0)


def krum_order(V, fewer):
    apart = distances(V)
    np.fill_diagonal(apart, np.inf)
    return np.argsort(np.sort(apart, axis=1)[:, : len(V) - F - fewer].sum(1), kind="stable")


def around_median(V, kept):
    far = np.abs(V - np.median(V, axis=0))
    return np.take_along_axis(V, np.argpartition(far, kept - 1, axis=0)[:kept], axis=0).mean(0)


def bulyan(V):
    apart, left = distances(V), np.arange(len(V))
    np.fill_diagonal(apart, np.inf)
    selected = []
    while len(selected) < len(V) - 2 * F:
        scores = np.sort(apart[np.ix_(left, left)], axis=1)[:, : max(len(left) - F - 2, 1)].sum(1)
        selected.append(left[np.argmin(scores)])
        left = np.delete(left, np.argmin(scores))
    return around_median(V[selected], len(V) - 4 * F)


def weighted_median(V):
    order = np.argsort(V, axis=0)
    reached = np.cumsum(np.ones(len(V))[order], axis=0)
    return np.take_along_axis(V, np.take_along_axis(order, (2 * reached >= len(V)).argmax(0)[None], axis=0), axis=0)[0]


def geometric_median(V):
    z = V.mean(0)
    for _ in range(8):
        b = 1 / np.maximum(1e-6, np.linalg.norm(V - z, axis=1))
        z = (b / b.sum()) @ V
    return z


def shortened(V):
    return np.minimum(1, BOUND / np.linalg.norm(V, axis=1))


def fltrust(V):
    g, others = V[TRUSTED], np.delete(np.arange(len(V)), TRUSTED)
    lengths = np.linalg.norm(V, axis=1)[others]
    trust = np.maximum((V @ g)[others] / lengths, 0)
    factor = np.zeros(len(V), V.dtype)
    factor[others] = trust / lengths * np.linalg.norm(g) / trust.sum()
    return factor @ V


def nearest(scores, V):
    return V[np.argsort(scores, kind="stable")[: len(V) - F]].mean(0)


def caf(V):
    products, c, least, best = (V @ V.T).astype(float), np.ones(len(V)), np.inf, None
    while c.sum() > len(V) - 2 * F:
        share = c / c.sum()
        center = np.eye(len(V)) - share
        inner = center @ products @ center.T
        values, vectors = np.linalg.eigh(np.sqrt(share)[:, None] * inner * np.sqrt(share))
        if values[-1] < least:
            least, best = values[-1], share
        tau = (inner @ (np.sqrt(share) * vectors[:, -1])) ** 2
        c = c * (1 - tau / tau[c > 0].max())
    return best.astype(V.dtype) @ V


def nnm(V):
    near = np.argsort(distances(V), axis=1, kind="stable")[:, : len(V) - F]
    rows = np.zeros((len(V), len(V)), V.dtype)
    np.put_along_axis(rows, near, 1 / (len(V) - F), axis=1)
    return (rows @ V).mean(0)


def arc(V):
    lengths = np.linalg.norm(V, axis=1)
    most = np.sort(lengths)[::-1][2 * F * (len(V) - F) // len(V)]
    return (np.minimum(1, most / lengths) * V.T).mean(1)


def bucketing(V):
    return V[np.random.default_rng(0).permutation(len(V))].reshape(-1, 2, V.shape[1]).mean(1).mean(0)


NUMPY = {
    "mean": lambda V: V.mean(0),
    "weighted_mean": lambda V: np.average(V, axis=0, weights=np.ones(len(V), V.dtype)),
    "median": lambda V: np.median(V, axis=0),
    "weighted_median": weighted_median,
    "trimmed_mean": lambda V: np.partition(V, (F, len(V) - F - 1), axis=0)[F : len(V) - F].mean(0),
    "meamed": lambda V: around_median(V, len(V) - F),
    "krum": lambda V: V[krum_order(V, 1)[0]],
    "multi_krum": lambda V: V[krum_order(V, 1)[: len(V) - F]].mean(0),
    "bulyan": bulyan,
    "geometric_median": geometric_median,
    "centered_clipping": lambda V: shortened(V) @ V / len(V),
    "norm_bounding": lambda V: shortened(V) @ V / len(V),
    "dp_mean": lambda V: (shortened(V) @ V + BOUND * np.random.default_rng(0).standard_normal(V.shape[1], V.dtype)) / len(V),
    "sign_majority": lambda V: np.sign(np.sign(V).sum(0)),
    "rlr": lambda V: np.where(np.abs(np.sign(V).sum(0)) >= 4, 1, -1) * V.mean(0),
    "fltrust": fltrust,
    "monna": lambda V: nearest(np.square(np.linalg.norm(V - V[TRUSTED], axis=1)), V),
    "caf": caf,
    "nnm": nnm,
    "arc": arc,
    "bucketing": bucketing,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clients", type=int)
    parser.add_argument("coordinates", type=int)
    options = parser.parse_args()
    V = messages(options.clients, options.coordinates)
    tensor, package = torch.from_numpy(V.copy()), byzfl()
    # byzfl's clipping and ARC write into what they are given: they get a copy, outside of what is timed.
    programs = {
        "numpy": (NUMPY, lambda: V),
        "byzfl": (package, lambda: V.copy()),
        "byzfl on torch": (package, lambda: tensor.clone()),
    }
    versions = {"numpy": np.__version__, "torch": torch.__version__, "byzfl": importlib.metadata.version("byzfl")}
    print(json.dumps({"versions": versions}), flush=True)
    for line in sys.stdin:
        program, _, rule = line.strip().partition(": ")
        rules, given = programs[program]
        if rule not in rules:
            print("{}", flush=True)
            continue
        rows = given()
        start = time.perf_counter()
        result = rules[rule](rows)
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "norm": float(np.linalg.norm(np.asarray(result, float)))}), flush=True)


if __name__ == "__main__":
    main()
