"""Convolution networks of many shapes: a training step on one core, this project's and PyTorch's in turns.

    python benchmarks/nets.py [NET ...] [--pairs 7] [--torch-python PATH]

A step is a gradient of the mean cross-entropy of 20 examples and plain SGD, from the same parameters, so the losses must agree.
One JSON line a net and program: seconds, GFLOP/s and, of this project's, the share of the matmul peak taken beside each turn.
PyTorch runs twice, with channels first and last: read the better. The turns and the protocol are those of `peers.py`.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from peers import INSTALL, in_turns, say

HERE = Path(__file__).parent
BATCH, CLASSES, RATE = 20, 10, 1e-3


class Conv(NamedTuple):
    width: int
    window: int
    stride: int = 1
    padding: str = "SAME"  # of odd windows, k // 2 on each side, as PyTorch counts it


POOL = "max pooling, windows of 2"


class Net(NamedTuple):
    example: tuple[int, ...]  # spatial sizes, then channels
    layers: tuple[Conv | str, ...]  # a ReLU after each convolution
    dense: tuple[int, ...] = ()  # with ReLU, before the layer of classes

    def kernels(self):
        """The shape of each layer's kernel in the order of the forward pass, and how often it is applied to an example."""
        *sizes, channels = self.example
        for layer in self.layers:
            if layer == POOL:
                sizes = [n // 2 for n in sizes]
                continue
            margin = layer.window - 1 if layer.padding == "VALID" else 0
            sizes = [-(-(n - margin) // layer.stride) for n in sizes]
            yield (layer.window,) * len(sizes) + (channels, layer.width), math.prod(sizes)
            channels = layer.width
        inputs = math.prod(sizes) * channels
        for width in (*self.dense, CLASSES):
            yield (inputs, width), 1
            inputs = width

    def arrays(self):
        """Initial parameters in the order of the forward pass, in flax's layouts."""
        rng = np.random.default_rng(0)
        for shape, _ in self.kernels():
            yield rng.normal(0, math.prod(shape[:-1]) ** -0.5, shape).astype(np.float32)
            yield np.zeros(shape[-1], np.float32)

    def flops(self):
        """Of the products of a training step: forward, and as much for each of two gradients."""
        return 3 * BATCH * sum(2 * math.prod(shape) * times for shape, times in self.kernels())

    def batch(self):
        rng = np.random.default_rng(1)
        return rng.normal(size=(BATCH, *self.example)).astype(np.float32), rng.integers(CLASSES, size=BATCH)


NETS = {
    "emnist": Net((28, 28, 1), (Conv(32, 3, 1, "VALID"), Conv(64, 3, 1, "VALID"), POOL), (128,)),
    "mcmahan": Net((28, 28, 1), (Conv(32, 5), POOL, Conv(64, 5), POOL), (512,)),
    "cifar": Net((32, 32, 3), (Conv(32, 3), Conv(32, 3), POOL, Conv(64, 3), Conv(64, 3), POOL), (512,)),
    "network_in_network": Net((32, 32, 3), (Conv(96, 5), Conv(96, 1), Conv(96, 1), POOL, Conv(96, 3), Conv(96, 1), POOL)),
    "pointwise": Net((28, 28, 32), (Conv(128, 1), Conv(128, 1), Conv(128, 1))),
    "strided": Net((32, 32, 3), (Conv(32, 3, 2), Conv(64, 3, 2), Conv(128, 3, 2))),
    "sequence": Net((256, 8), (Conv(64, 5), POOL, Conv(128, 5), POOL)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nets", nargs="*", metavar="NET", default=list(NETS), help=f"of {', '.join(NETS)}; by default all")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--torch-python", default=sys.executable, metavar="PATH", help="interpreter that can import torch")
    options = parser.parse_args()
    if unknown := set(options.nets) - set(NETS):
        parser.error(f"no such net: {', '.join(sorted(unknown))}; there are {', '.join(NETS)}")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # and with it every program started from here
    torch = not subprocess.run([options.torch_python, "-c", "import torch"], capture_output=True).returncode
    if not torch:
        print(f"torch is skipped: {INSTALL['torch']}, or --torch-python PATH", file=sys.stderr)
    for name in options.nets:
        images = len(NETS[name].example) == 3
        variants = ["channels first", *["channels last"] * images] if torch else []
        commands = [[sys.executable, str(HERE / "net_jax.py"), name]]
        commands += [[options.torch_python, str(HERE / "net_torch.py"), name, variant] for variant in variants]
        report(name, commands, options.pairs)


def report(name, commands, pairs):
    contenders, lines = in_turns(commands, pairs, least=3)
    gflop = NETS[name].flops() / 1e9
    for line, contender in zip(lines, contenders, strict=True):
        rates = [gflop / turn["seconds"] for turn in contender.turns]
        shares = [rate / turn["peak"] for rate, turn in zip(rates, contender.turns, strict=True) if "peak" in turn]
        line = {"benchmark": "nets", "net": name, "gflops": round(statistics.median(rates), 1)} | line
        say(line | {"share": round(statistics.median(shares), 3)} if shares else line)
    if max(line["first_loss"] for line in lines) - min(line["first_loss"] for line in lines) > 1e-3:
        print("the losses differ: these programs have not done the same arithmetic", file=sys.stderr)


if __name__ == "__main__":
    main()
