"""How long does each aggregator take, beside byzfl and NumPy?

    python benchmarks/aggregators.py [--clients 100] [--coordinates 1000000] [--repeats 5] [--only RULE ...] [--peer-python PATH]

The same messages for all; each rule of this project and then each peer's, in turns, so read the ratios. PATH is the interpreter of an
environment with the packages that `peer_rules.py` names; without it this project is timed alone. One JSON line a rule, then a Markdown
table. Krum counts its neighbours as byzfl does. `mda` is exponential in f and left out, `secure_mean` no other program here has.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from measure import compiled, program_memory, report, use_devices
from peers import Contender
from rules import BOUND, TRUSTED, F, messages

import fedjax_lite as fl
from fedjax_lite import aggregators

RULES = {
    "mean": aggregators.mean(),
    "weighted_mean": aggregators.weighted_mean(),
    "median": aggregators.median(),
    "weighted_median": aggregators.weighted_median(),
    "trimmed_mean": aggregators.trimmed_mean(F),
    "meamed": aggregators.meamed(F),
    "krum": aggregators.krum(F, neighbors="byzfl"),
    "multi_krum": aggregators.multi_krum(F, neighbors="byzfl"),
    "bulyan": aggregators.bulyan(F),
    "geometric_median": aggregators.geometric_median(iterations=8),
    "centered_clipping": aggregators.centered_clipping(BOUND),
    "norm_bounding": aggregators.norm_bounding(BOUND),
    "sign_majority": aggregators.sign_majority(),
    "rlr": aggregators.rlr(threshold=4),
    "fltrust": aggregators.fltrust(TRUSTED),
    "monna": aggregators.monna(F, TRUSTED),
    "caf": aggregators.caf(F),
    "nnm": aggregators.nnm(aggregators.mean(), F),
    "arc": aggregators.arc(aggregators.mean(), F),
    "bucketing": aggregators.bucketing(aggregators.mean(), 2),
}
PRIVATE = {  # of the clients' number and the coordinates of a message with padding
    "dp_mean": lambda clients, d: aggregators.dp_mean(BOUND, 1.0, clients),
    "dp_mean adaptive": lambda clients, d: aggregators.dp_mean(BOUND, 1.0, clients, quantile=0.5),
    "dp_ftrl": lambda clients, d: aggregators.dp_ftrl(BOUND, 1.0, clients, rounds=100),
    "ddgauss": lambda clients, d: aggregators.ddgauss(BOUND, 1.0, clients, d),
    "skellam": lambda clients, d: aggregators.skellam(BOUND, 1.0, clients, d),
}
PEERS = "byzfl", "byzfl on torch", "numpy"


def problem(clients, coordinates):
    """Every rule by name, a stack of messages for them, and its cohort."""
    V = messages(clients, coordinates)
    width = coordinates // 1000  # a matrix and a vector, as a network's layers are
    stack = jax.tree.map(jnp.asarray, {"kernel": V[:, : 999 * width].reshape(-1, 999, width), "bias": V[:, 999 * width :]})
    padded = aggregators.padded_size(jax.tree.map(lambda x: x[0], stack))
    cohort = fl.sampling.cohort(jax.random.key(0), jnp.full(clients, 10, jnp.int32), jnp.arange(clients))
    return RULES | {name: make(clients, padded) for name, make in PRIVATE.items()}, stack, cohort


def prepared(aggregator, stack, cohort):
    """A call of one rule, warmed up, and what is known of its program."""

    def aggregate(stack, cohort, state, key):
        return aggregator.finish(aggregator.collect(stack, cohort, state), state, key)[0]

    operands = stack, cohort, aggregator.init(jax.tree.map(lambda x: x[0], stack)), jax.random.key(1)
    program, seconds = compiled(aggregate, *operands)

    def call():
        return program(*operands)

    timed(call)
    return call, {"compile_seconds": round(seconds, 2), "memory_gb": round(program_memory(program), 3)}


def timed(call):
    """One call: seconds, and the norm of what came back."""
    start = time.perf_counter()
    result = jax.block_until_ready(call())
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "norm": float(np.sqrt(sum(np.sum(np.square(x, dtype=float)) for x in jax.tree.leaves(result))))}


def summary(turns):
    """What is reported of the turns of one rule."""
    return {"seconds": round(statistics.median(turn["seconds"] for turn in turns), 5), "norm": round(turns[0]["norm"], 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--coordinates", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=[*RULES, *PRIVATE], default=[*RULES, *PRIVATE])
    parser.add_argument("--peer-python", metavar="PATH", help="interpreter that can import byzfl and torch")
    options = parser.parse_args()
    use_devices(1)
    rules, stack, cohort = problem(options.clients, options.coordinates)

    with tempfile.TemporaryDirectory() as folder:
        peer = None
        if options.peer_python:
            script = str(Path(__file__).parent / "peer_rules.py")
            peer = Contender([options.peer_python, script, str(options.clients), str(options.coordinates)], f"{folder}/log")
            print("ready:", peer.hello, file=sys.stderr)
        rows = ["| rule | ms | times this: byzfl | byzfl on PyTorch | NumPy |", "|---|---|---|---|---|"]
        for name in options.only:
            call, facts = prepared(rules[name], stack, cohort)
            ours, theirs = [], {program: [] for program in (PEERS if peer else ())}
            for _ in range(options.repeats):
                ours.append(timed(call))
                for program, turns in theirs.items():
                    if turn := peer.take(f"{program}: {name}"):
                        turns.append(turn)
            theirs = {program: turns for program, turns in theirs.items() if turns}
            ratios = {p: [t["seconds"] / o["seconds"] for t, o in zip(turns, ours, strict=True)] for p, turns in theirs.items()}
            line = {"rule": name} | summary(ours) | facts
            report(
                **line,
                ratio={program: round(statistics.median(found), 2) for program, found in ratios.items()},
                range={program: [round(min(found), 2), round(max(found), 2)] for program, found in ratios.items()},
                norms={program: round(turns[0]["norm"], 3) for program, turns in theirs.items()},
            )
            cells = [
                f"{statistics.median(ratios[p]):.2g} ({min(ratios[p]):.2g}-{max(ratios[p]):.2g})" if p in ratios else "" for p in PEERS
            ]
            rows.append(f"| `{name}` | {1000 * line['seconds']:.3g} | {' | '.join(cells)} |")
        print("", *rows, sep="\n")
        if peer:
            peer.close()


if __name__ == "__main__":
    main()
