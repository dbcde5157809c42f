"""Reference numbers of small federated problems, computed by an independent implementation with other random draws."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_lite as fl
from fedjax_lite.data.idx import read_idx

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mnist_10k(real_data):
    """The MNIST test images split by permutation default_rng(0): 8000 to train on, 2000 to test."""
    x = read_idx(real_data / "mnist_idx" / "t10k-images-idx3-ubyte.gz").reshape(10_000, 784) / np.float32(255)
    y = read_idx(real_data / "mnist_idx" / "t10k-labels-idx1-ubyte.gz").astype(np.int32)
    order = np.random.default_rng(0).permutation(10_000)
    return {"x": x[order[:8000]], "y": y[order[:8000]]}, {"x": x[order[8000:]], "y": y[order[8000:]]}


def accuracy_after_100_rounds(mnist_10k, partition, batches, seeds=3):
    """Softmax regression, 100 clients of 80 examples, 10 a round, rate 0.1, uniform weights; mean over seeds."""
    train, test = mnist_10k
    model = fl.models.mlp((), classes=10)
    loss_fn = fl.models.supervised(model)
    algorithm = fl.algorithms.fedavg(loss_fn, optax.sgd(0.1), batches=batches, population=100, aggregator=fl.aggregators.mean())

    def run(data, key):
        params = jax.tree.map(jnp.zeros_like, model.init(key, data.example))
        return algorithm.params(fl.simulate(algorithm, data, params, fl.sampling.uniform(10), rounds=100, key=key)[0])

    run, accuracies = jax.jit(run), []
    for seed in range(seeds):
        parts = partition(np.random.default_rng(seed), train["y"])
        data = fl.FederatedData.from_clients([jax.tree.map(lambda x, rows=rows: x[rows], train) for rows in parts])
        accuracies.append(loss_fn(run(data, jax.random.key(seed)), test, None)[1]["accuracy"].mean())
    return np.mean(accuracies)


@pytest.mark.parametrize(
    "partition, batches, expected, margin",
    [
        (fl.partition.iid(100), fl.Batches(10), 0.9014, 0.006),
        (fl.partition.iid(100), fl.Batches(10, epochs=5), 0.9088, 0.006),
        (fl.partition.iid(100), fl.Batches(None), 0.8672, 0.005),
        (fl.partition.shards(100), fl.Batches(10), 0.880, 0.02),
        (fl.partition.shards(100), fl.Batches(10, epochs=5), 0.879, 0.02),
        (fl.partition.shards(100), fl.Batches(None), 0.859, 0.02),
    ],
    ids=["iid E1 B10", "iid E5 B10", "iid B=all", "shards E1 B10", "shards E5 B10", "shards B=all"],
)
def test_mnist_10k_softmax(mnist_10k, partition, batches, expected, margin):
    assert accuracy_after_100_rounds(mnist_10k, partition, batches) == pytest.approx(expected, abs=margin)


@pytest.mark.parametrize("seed, expected", [(0, (1.020, 0.685, 0.831, 0.788)), (1, (0.918, 0.692, 0.554, 0.771))])
def test_synthetic_1_1_fedavg(seed, expected):
    """Train loss over all clients and test accuracy at rounds 50 and 200: 10 of 30 clients, rate .01, batch 10, 20 epochs."""
    data = fl.data.synthetic(1.0, 1.0, seed=seed)
    model = fl.models.mlp((), classes=10)
    loss_fn = fl.models.supervised(model)
    params = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0), data.example))
    algorithm = fl.algorithms.fedavg(loss_fn, optax.sgd(0.01), batches=fl.Batches(10, epochs=20), population=30)
    found = []
    state = algorithm.init(params, jax.random.key(seed))
    for rounds in (50, 150):
        advance = jax.jit(lambda data, state, rounds=rounds: fl.advance(algorithm, data, state, fl.sampling.uniform(10), rounds=rounds)[0])
        state = advance(data.train, state)
        for name, part in (("loss", data.train), ("accuracy", data.test)):
            mean = fl.evaluate(loss_fn, algorithm.params(state), part)[name]
            found.append(float(mean.total.sum() / mean.count.sum()))
    # The last rounds jump by the cohort they drew: the reference is one trajectory, this is another.
    np.testing.assert_allclose(found[0::2], expected[0::2], rtol=0.35)
    np.testing.assert_allclose(found[1::2], expected[1::2], atol=0.09)
