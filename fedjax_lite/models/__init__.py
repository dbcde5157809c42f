"""Models: pairs of pure functions `init` and `apply`; the networks here are flax."""

from fedjax_lite.models.convolution import matmul_conv
from fedjax_lite.models.equinox import from_equinox
from fedjax_lite.models.examples import example_by_example
from fedjax_lite.models.functions import from_functions
from fedjax_lite.models.haiku import from_haiku
from fedjax_lite.models.inputs import augmented, normalised
from fedjax_lite.models.linen import from_linen
from fedjax_lite.models.losses import supervised
from fedjax_lite.models.model import Model, WithStatistics
from fedjax_lite.models.networks.cnn import cifar_cnn, emnist_cnn, feddyn_cnn, lenet5, mcmahan_cnn
from fedjax_lite.models.networks.linear import linear, logistic, mlp
from fedjax_lite.models.networks.recurrent import char_lstm, word_lstm
from fedjax_lite.models.networks.resnet import resnet18, resnet20
from fedjax_lite.models.networks.transformer import transformer
from fedjax_lite.models.networks.vgg import vgg11
from fedjax_lite.models.nnx import from_nnx
from fedjax_lite.models.normalisation import group_norm
from fedjax_lite.models.pooling import max_pool
from fedjax_lite.models.pretrained import pretrained
from fedjax_lite.models.recurrent import lstm

__all__ = [
    "Model",
    "WithStatistics",
    "augmented",
    "char_lstm",
    "cifar_cnn",
    "emnist_cnn",
    "example_by_example",
    "feddyn_cnn",
    "from_equinox",
    "from_functions",
    "from_haiku",
    "from_linen",
    "from_nnx",
    "group_norm",
    "lenet5",
    "linear",
    "logistic",
    "lstm",
    "matmul_conv",
    "max_pool",
    "mcmahan_cnn",
    "mlp",
    "normalised",
    "pretrained",
    "resnet18",
    "resnet20",
    "supervised",
    "transformer",
    "vgg11",
    "word_lstm",
]
