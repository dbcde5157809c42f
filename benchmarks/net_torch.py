"""A network of `nets.py` in PyTorch: `python benchmarks/net_torch.py NET ["channels last"]`; speaks the protocol of `peers.py`."""

import itertools
import sys

import numpy as np
import torch
import torch.nn.functional as F
from nets import NETS, POOL, RATE
from peers import serve
from torch import nn


def build(net):
    """The net with the arrays' values; its flatten is in flax's order."""
    spatial, channels = len(net.example) - 1, net.example[-1]
    conv, pool = (nn.Conv2d, nn.MaxPool2d) if spatial == 2 else (nn.Conv1d, nn.MaxPool1d)
    arrays = map(torch.from_numpy, net.arrays())
    convolutions, dense = nn.Sequential(), nn.Sequential()
    for layer in net.layers:
        if layer == POOL:
            convolutions.append(pool(2))
            continue
        margin = 0 if layer.padding == "VALID" else layer.window // 2
        convolutions.extend([conv(channels, layer.width, layer.window, layer.stride, margin), nn.ReLU()])
        kernel = next(arrays)
        fill(convolutions[-2], kernel.permute(-1, -2, *range(spatial)), next(arrays))
        channels = layer.width
    for kernel in arrays:
        dense.extend([nn.Linear(*kernel.shape), nn.ReLU()])
        fill(dense[-2], kernel.T, next(arrays))
    return convolutions, dense[:-1]


def fill(layer, kernel, bias):
    layer.weight.data.copy_(kernel)
    layer.bias.data.copy_(bias)


def main():
    torch.set_num_threads(1)
    name, variant = sys.argv[1:]
    convolutions, dense = build(NETS[name])
    x, y = map(torch.from_numpy, NETS[name].batch())
    x = x.movedim(-1, 1).contiguous()
    if variant == "channels last":
        x, convolutions = x.to(memory_format=torch.channels_last), convolutions.to(memory_format=torch.channels_last)
    parameters = [*convolutions.parameters(), *dense.parameters()]

    def step(_):
        loss = F.cross_entropy(dense(convolutions(x).movedim(1, -1).flatten(1)), y)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            torch._foreach_add_(parameters, gradients, alpha=-RATE)
        return loss

    start = [p.detach().clone() for p in parameters]
    for _ in range(3):
        step(None)
    with torch.no_grad():
        torch._foreach_copy_(parameters, start)
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    serve(step, itertools.repeat(None), program="torch", variant=variant, versions=versions, compile_seconds=0.0)


if __name__ == "__main__":
    main()
