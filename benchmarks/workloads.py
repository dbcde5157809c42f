"""The workloads that programs are timed on side by side: NumPy alone, so that every peer's environment can import it.

A workload fixes a population of clients of ragged (lognormal) sizes, a cohort a round, batch size, epochs, SGD rate and, in
words, the model, so that every program does the same arithmetic. Data is random but depends on the label: a loss falls, and a
program that trains nothing is found out. Batches are taken in order and the short last one is kept.
"""

from typing import NamedTuple

import numpy as np


class Workload(NamedTuple):
    """One row of the tables; sizes are lognormal with the given median and spread in log space."""

    name: str
    model: str
    population: int
    cohort: int
    median: float
    spread: float
    largest: int
    batch: int
    rate: float
    shape: tuple[int, ...]  # of one example
    classes: int
    flops: float  # forward, one example, a multiply-add counted as 2; training takes three times as many

    @property
    def sizes(self) -> np.ndarray:
        """Examples a client, `[population]`."""
        drawn = np.random.default_rng(1234).lognormal(np.log(self.median), self.spread, self.population)
        return np.clip(np.round(drawn), 1, self.largest).astype(int)

    def examples(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and labels of all clients in turn."""
        rng, total = np.random.default_rng(99), int(self.sizes.sum())
        if self.name in TEXTS:
            text = rng.integers(0, self.classes, (total, self.shape[0] + 1)).astype(np.int32)
            return text[:, :-1], text[:, 1:]
        centers = rng.standard_normal((self.classes, *self.shape)).astype(np.float32)
        labels = rng.integers(0, self.classes, total).astype(np.int32)
        inputs = rng.standard_normal((total, *self.shape)).astype(np.float32)
        inputs += 0.5 * centers[labels]
        return inputs, labels

    def cohorts(self, rounds: int) -> np.ndarray:
        """Client ids, `[rounds, cohort]`, different ones in each round."""
        rng = np.random.default_rng(7)
        return np.stack([rng.choice(self.population, self.cohort, replace=False) for _ in range(rounds)])


TEXTS = "char_lstm", "transformer"
WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("softmax", "60-10 softmax regression", 10_000, 1000, 30, 1.5, 2000, 10, 0.05, (60,), 10, 2 * 60 * 10),
        Workload(
            "mlp", "784-200-200-10 ReLU", 2000, 100, 40, 1.0, 512, 20, 0.05, (28, 28, 1), 10,
            2 * (784 * 200 + 200 * 200 + 200 * 10),
        ),
        Workload(
            "emnist_cnn", "conv 3x3x32, conv 3x3x64 (valid, ReLU), max pool 2x2, dense 128 ReLU, dense 62",
            1000, 20, 100, 0.8, 400, 20, 0.05, (28, 28, 1), 62,
            2 * (26 * 26 * 9 * 32 + 24 * 24 * 9 * 32 * 64 + 12 * 12 * 64 * 128 + 128 * 62),
        ),
        Workload(
            "char_lstm", "embedding 8, LSTM 256, LSTM 256, dense 90, 80 characters",
            500, 10, 20, 1.0, 200, 4, 0.5, (80,), 90,
            80 * 2 * (4 * 256 * (8 + 256) + 4 * 256 * 512 + 256 * 90),
        ),
        Workload(
            "lenet5", "conv 5x5x6, conv 5x5x16 (valid, ReLU, max pool 2x2 each), dense 120 ReLU, dense 84 ReLU, dense 10",
            1000, 50, 100, 0.8, 400, 20, 0.05, (28, 28, 1), 10,
            2 * (24 * 24 * 25 * 6 + 8 * 8 * 150 * 16 + 256 * 120 + 120 * 84 + 84 * 10),
        ),
        Workload(
            "vgg11", "VGG-11 without normalisation, dense 10", 100, 6, 40, 0.5, 100, 20, 0.01, (32, 32, 3), 10,
            2 * (
                32**2 * 27 * 64 + 16**2 * 576 * 128 + 8**2 * (1152 + 2304) * 256
                + 4**2 * (2304 + 4608) * 512 + 2**2 * 2 * 4608 * 512 + 5120
            ),
        ),
        Workload(
            "resnet18", "ResNet-18, group normalisation of 2 groups, first convolution 3x3",
            100, 4, 40, 0.5, 100, 20, 0.01, (32, 32, 3), 10,
            2 * (
                32**2 * (27 + 4 * 576) * 64 + 16**2 * (576 + 3 * 1152 + 64) * 128
                + 8**2 * (1152 + 3 * 2304 + 128) * 256 + 4**2 * (2304 + 3 * 4608 + 256) * 512 + 5120
            ),
        ),
        Workload(
            "resnet20", "ResNet-20, group normalisation of 2 groups, padded shortcuts", 100, 10, 100, 0.5, 300, 20, 0.05, (32, 32, 3), 10,
            2 * (32**2 * (27 + 6 * 144) * 16 + 16**2 * (144 + 5 * 288) * 32 + 8**2 * (288 + 5 * 576) * 64 + 640),
        ),
        Workload(
            "transformer", "embedding 128, 2 blocks of 4 heads, rotary positions, tied output, 80 characters",
            500, 10, 40, 1.0, 200, 10, 0.1, (80,), 90, 80 * 2 * (24 * 128**2 + 128 * 90 + 2 * 2 * 80 * 128),
        ),
    )
}  # fmt: skip
