"""FedJAX's contender, through its public API, on one of `workloads.py`. Speaks the protocol of `peers.py`.

    python benchmarks/peer_fedjax.py WORKLOAD [--start FILE.npz] [--buckets K]

FedAvg on `fedjax.for_each_client`, as the library's tutorial builds it, with its jit backend (one client after the other), because
`fedjax.algorithms.fed_avg` refills a client's short last batch and so trains on other examples. The short batch comes as it is
(`ClientDataset.batch`), one compiled shape for each remainder, or with `--buckets K` it is padded to one of K sizes and masked
(`padded_batch`). A round fetches its cohort with `get_clients` and ends when the new server parameters are there.

Haiku's LSTM has one matrix for input and state, the gates in the order i, g, f, o, and adds 1 to the forget gate: `--start` is turned
into that, so that the arithmetic is the same. Needs jax below 0.6, which removed `jax.tree_map`, and dm-haiku 0.0.12.
"""

import argparse
import os
import platform
import time
from importlib.metadata import version

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import fedjax
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from peers import serve
from workloads import WORKLOADS


def forward(workload):
    """The workload's model in Haiku."""

    def mlp(x):
        return hk.Sequential([hk.Flatten(), hk.Linear(200), jax.nn.relu, hk.Linear(200), jax.nn.relu, hk.Linear(10)])(x)

    def emnist_cnn(x):
        convolutions = [hk.Conv2D(32, 3, padding="VALID"), jax.nn.relu, hk.Conv2D(64, 3, padding="VALID"), jax.nn.relu]
        pool = hk.MaxPool((1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return hk.Sequential([*convolutions, pool, hk.Flatten(), hk.Linear(128), jax.nn.relu, hk.Linear(62)])(x)

    def char_lstm(x):
        core = hk.DeepRNN([hk.LSTM(256), hk.LSTM(256)])
        hidden, _ = hk.dynamic_unroll(core, hk.Embed(90, 8)(x.T), core.initial_state(x.shape[0]))
        return hk.Linear(90)(hidden.transpose(1, 0, 2))

    return {"softmax": lambda x: hk.Linear(10)(x), "mlp": mlp, "emnist_cnn": emnist_cnn, "char_lstm": char_lstm}[workload]


def example_losses(batch, logits):
    """Cross-entropy of each example, `[batch]`; of a text, the mean over its characters."""
    losses = fedjax.metrics.unreduced_cross_entropy_loss(batch["y"], logits)
    return losses.reshape(len(losses), -1).mean(1)


def load(params, start):
    """The parameters in the file `start`, in the structure of Haiku's."""
    arrays = np.load(start)
    taken = iter([arrays[str(i)] for i in range(len(arrays.files))])
    layers, loaded = ("embed", "lstm", "conv", "linear"), {}
    for module in sorted(params, key=lambda name: (next(i for i, layer in enumerate(layers) if name.startswith(layer)), name)):
        if module == "embed":
            loaded[module] = {"embeddings": next(taken)}
        elif module.startswith("lstm"):
            weight = np.concatenate([next(taken), next(taken)])
            (wi, wf, wg, wo), (bi, bf, bg, bo) = np.split(weight, 4, axis=1), np.split(next(taken), 4)
            loaded[module] = {"w": np.concatenate([wi, wg, wf, wo], axis=1), "b": np.concatenate([bi, bg, bf - 1, bo])}
        else:
            loaded[module] = {"w": next(taken), "b": next(taken)}
    fits = jax.tree_util.tree_map(lambda a, b: a.shape == b.shape, loaded, dict(params))
    if not all(jax.tree_util.tree_leaves(fits)):
        raise ValueError(f"{start}: these arrays are not this workload's parameters: {fits}")
    return jax.tree_util.tree_map(jnp.asarray, loaded)


def federated_averaging(model, rate, batches):
    """FedAvg from `fedjax.for_each_client`; its `apply` also returns each client's sum of example losses."""
    per_example_loss = fedjax.model_per_example_loss(model)
    client_optimizer, server_optimizer = fedjax.optimizers.sgd(rate), fedjax.optimizers.sgd(1.0)

    def mean_loss(params, batch):  # as fedjax.model_grad differentiates it
        losses = per_example_loss(params, batch, None)
        mask = batch.get(fedjax.EXAMPLE_MASK_KEY, jnp.ones(len(losses)))
        return jnp.vdot(losses, mask) / jnp.maximum(mask.sum(), 1), jnp.vdot(losses, mask)

    def client_init(server_params, _):
        return {"params": server_params, "optimizer": client_optimizer.init(server_params), "loss_sum": jnp.zeros(())}

    def client_step(state, batch):
        grads, loss_sum = jax.grad(mean_loss, has_aux=True)(state["params"], batch)
        optimizer, params = client_optimizer.apply(grads, state["optimizer"], state["params"])
        return {"params": params, "optimizer": optimizer, "loss_sum": state["loss_sum"] + loss_sum}

    def client_final(server_params, state):
        return jax.tree_util.tree_map(jnp.subtract, server_params, state["params"]), state["loss_sum"]

    train = fedjax.for_each_client(client_init, client_step, client_final)

    def init(params):
        return fedjax.algorithms.fed_avg.ServerState(params, server_optimizer.init(params))

    def apply(state, clients):
        size, losses = {c: float(len(data)) for c, data, _ in clients}, []

        def weighted():
            for c, (delta, loss_sum) in train(state.params, [(c, batches(data), rng) for c, data, rng in clients]):
                losses.append(loss_sum)
                yield delta, size[c]

        optimizer, params = server_optimizer.apply(fedjax.tree_util.tree_mean(weighted()), state.opt_state, state.params)
        return fedjax.algorithms.fed_avg.ServerState(params, optimizer), losses

    return fedjax.FederatedAlgorithm(init, apply)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--start", help="initial parameters, an .npz file")
    parser.add_argument("--buckets", type=int, help="pad the short last batch to one of so many sizes")
    options = parser.parse_args()
    workload = WORKLOADS[options.workload]

    x, y = (np.split(a, np.cumsum(workload.sizes)[:-1]) for a in workload.examples())
    names = [b"%08d" % i for i in range(workload.population)]
    population = fedjax.InMemoryFederatedData({name: {"x": a, "y": b} for name, a, b in zip(names, x, y)})
    network = hk.transform(lambda batch: forward(options.workload)(batch["x"]))
    model = fedjax.create_model_from_haiku(network, {"x": x[0][:1], "y": y[0][:1]}, example_losses)
    if options.buckets:
        padding = fedjax.PaddedBatchHParams(batch_size=workload.batch, num_batch_size_buckets=options.buckets)
        algorithm = federated_averaging(model, workload.rate, lambda data: data.padded_batch(padding))
    else:
        algorithm = federated_averaging(model, workload.rate, lambda data: data.batch(batch_size=workload.batch))
    params = model.init(jax.random.PRNGKey(0))
    start = state = algorithm.init(load(params, options.start) if options.start else params)

    def one_round(ids):
        nonlocal state
        clients = [(name, data, None) for name, data in population.get_clients([names[i] for i in ids])]
        state, losses = algorithm.apply(state, clients)
        jax.block_until_ready(state.params)
        return losses, workload.sizes[ids].sum()

    shapes = np.unique(workload.sizes % workload.batch, return_index=True)[1]  # a client of every remainder
    cohorts, seconds = workload.cohorts(200), []
    for ids in (shapes, shapes, cohorts[-1]):
        began = time.perf_counter()
        one_round(ids)
        seconds.append(time.perf_counter() - began)
    state = start
    serve(
        one_round,
        cohorts,
        loss_fn=lambda result: sum(map(float, result[0])) / result[1],
        program="fedjax",
        variant=f"short batch padded to {options.buckets} sizes" if options.buckets else "short batch as it is",
        versions={"fedjax": version("fedjax"), "jax": jax.__version__, "haiku": hk.__version__, "python": platform.python_version()},
        compile_seconds=round(seconds[0] - seconds[1], 2),
    )


if __name__ == "__main__":
    main()
