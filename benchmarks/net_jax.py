"""A network of `nets.py` as a user of this project writes it; speaks the protocol of `peers.py`, a round being a training step."""

import functools
import sys
import time
from importlib.metadata import version

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from measure import matmul_peak
from nets import CLASSES, NETS, POOL, RATE, Net
from peers import say

import fedjax_lite as fl


class Network(nn.Module):
    net: Net

    @nn.compact
    def __call__(self, x):
        strides = [layer.stride for layer in self.net.layers if layer != POOL]
        x = self.convolutions(x) if max(strides) > 1 else fl.models.example_by_example(self.convolutions, x)
        x = x.reshape(len(x), -1)
        for width in self.net.dense:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(CLASSES)(x)

    def convolutions(self, x):
        spatial = x.ndim - 2
        for layer in self.net.layers:
            if layer == POOL:
                x = fl.models.max_pool(x, (2,) * spatial, (2,) * spatial)
            else:
                margin = 0 if layer.padding == "VALID" else layer.window // 2
                conv = functools.partial(nn.Conv, conv_general_dilated=fl.models.matmul_conv)
                x = nn.relu(conv(layer.width, (layer.window,) * spatial, layer.stride, margin)(x))
        return x


def main():
    net = NETS[sys.argv[1]]
    x, y = map(jnp.asarray, net.batch())
    network = Network(net)
    layers = network.init(jax.random.key(0), x)["params"]
    arrays = net.arrays()
    params = {name: {"kernel": next(arrays), "bias": next(arrays)} for name in layers}

    def mean_loss(params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(network.apply({"params": params}, x), y).mean()

    def step(params, x, y):
        loss, gradient = jax.value_and_grad(mean_loss)(params, x, y)
        return jax.tree.map(lambda p, g: p - RATE * g, params, gradient), loss

    @jax.jit
    def steps(params, x, y, number):
        start = params, jnp.float32(0)
        return jax.lax.fori_loop(0, number, lambda _, carry: step(carry[0], x, y), start)

    began = time.perf_counter()
    program = steps.lower(params, x, y, 1).compile()
    compile_seconds = round(time.perf_counter() - began, 2)
    jax.block_until_ready(program(params, x, y, 1))
    peak = matmul_peak()
    versions = {"jax": jax.__version__, "fedjax_lite": version("fedjax_lite")}
    say({"program": "fedjax_lite", "variant": "one core", "versions": versions, "compile_seconds": compile_seconds})
    for line in sys.stdin:
        before, began = peak(0.1), time.perf_counter()
        params, loss = jax.block_until_ready(program(params, x, y, int(line)))
        seconds = (time.perf_counter() - began) / int(line)
        say({"seconds": seconds, "loss": float(loss), "peak": max(before, peak(0.1))})


if __name__ == "__main__":
    main()
