"""Models: pairs of pure functions `init` and `apply`; the networks here are flax."""

from fedjax_lite.models.cnn import cifar_cnn, emnist_cnn
from fedjax_lite.models.convolution import matmul_conv
from fedjax_lite.models.examples import example_by_example
from fedjax_lite.models.losses import supervised
from fedjax_lite.models.networks import Model, from_linen, linear, mlp
from fedjax_lite.models.pooling import max_pool
from fedjax_lite.models.recurrent import char_lstm, lstm

__all__ = [
    "Model",
    "char_lstm",
    "cifar_cnn",
    "emnist_cnn",
    "example_by_example",
    "from_linen",
    "linear",
    "lstm",
    "matmul_conv",
    "max_pool",
    "mlp",
    "supervised",
]
