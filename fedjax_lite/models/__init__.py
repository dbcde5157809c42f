"""Models: pairs of pure functions `init` and `apply`; the networks here are flax."""

from fedjax_lite.models.cnn import cifar_cnn, emnist_cnn
from fedjax_lite.models.convolution import matmul_conv
from fedjax_lite.models.equinox import from_equinox
from fedjax_lite.models.examples import example_by_example
from fedjax_lite.models.functions import from_functions
from fedjax_lite.models.haiku import from_haiku
from fedjax_lite.models.linen import from_linen
from fedjax_lite.models.losses import supervised
from fedjax_lite.models.model import Model, WithStatistics
from fedjax_lite.models.networks import linear, mlp
from fedjax_lite.models.nnx import from_nnx
from fedjax_lite.models.pooling import max_pool
from fedjax_lite.models.pretrained import pretrained
from fedjax_lite.models.recurrent import char_lstm, lstm

__all__ = [
    "Model",
    "WithStatistics",
    "char_lstm",
    "cifar_cnn",
    "emnist_cnn",
    "example_by_example",
    "from_equinox",
    "from_functions",
    "from_haiku",
    "from_linen",
    "from_nnx",
    "linear",
    "lstm",
    "matmul_conv",
    "max_pool",
    "mlp",
    "pretrained",
    "supervised",
]
