"""The convolutional networks of two to four convolutions of federated learning's benchmarks."""

from fedjax_lite.base import Whole
from fedjax_lite.models.model import Model
from fedjax_lite.models.networks.plain import plain_cnn
from fedjax_lite.refuse import a_count


def emnist_cnn(classes: Whole = 62, *, dropout: tuple[float, float] | None = (0.25, 0.5)) -> Model:
    """FedJAX's network for EMNIST, 1.2 million parameters.

    Convolutions 3x3 of 32 and 64 channels without padding, ReLU after each, max pooling 2x2, dropout, a dense layer of 128
    with ReLU, dropout, a dense layer of `classes`.

    Args:
        classes: outputs; 62 characters, or 10 digits.
        dropout: rates after pooling and after the dense layer, in training (where `apply` is given a key); None for none.

    Returns:
        A model of images `[28, 28, 1]`, `[28, 28]` or `[784]`.

    Source: Ro, Suresh and Wu, "FedJAX: Federated learning simulation with JAX" (2021), fedjax/models/emnist.py;
    Reddi et al., "Adaptive Federated Optimization" (2021), table 4.

    >>> import jax, jax.numpy as jnp
    >>> sum(x.size for x in jax.tree.leaves(jax.eval_shape(emnist_cnn().init, jax.random.key(0), {"x": jnp.zeros((28, 28, 1))})))
    1206590
    """
    return plain_cnn("emnist_cnn", classes, dropout, blocks=((32, 64),), padding="VALID", hidden=(128,), image=(28, 28, 1))


def mcmahan_cnn(classes: Whole = 10) -> Model:
    """The network for MNIST of the paper on federated averaging, 1.7 million parameters.

    Twice: a convolution 5x5 with padding, of 32 and then of 64 channels, ReLU and max pooling 2x2. Then a dense layer of 512 with
    ReLU, a dense layer of `classes`.

    Args:
        classes: outputs.

    Returns:
        A model of images `[28, 28, 1]`, `[28, 28]` or `[784]`.

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data" (2017), section 3: the CNN
    of 1,663,370 parameters.

    >>> import jax, jax.numpy as jnp
    >>> sum(x.size for x in jax.tree.leaves(jax.eval_shape(mcmahan_cnn().init, jax.random.key(0), {"x": jnp.zeros((28, 28, 1))})))
    1663370
    """
    return plain_cnn("mcmahan_cnn", classes, blocks=((32,), (64,)), window=5, hidden=(512,), image=(28, 28, 1))


def cifar_cnn(classes: Whole = 10, *, dropout: tuple[float, float] | None = None) -> Model:
    """A VGG-like network for CIFAR, 2.2 million parameters.

    Twice: two convolutions 3x3 with padding and ReLU, of 32 and then of 64 channels, and max pooling 2x2. Then dropout, a dense
    layer of 512 with ReLU, dropout, a dense layer of `classes`.

    Args:
        classes: outputs; 10 or 100.
        dropout: rates before and after the dense layer of 512, in training; None for none.

    Returns:
        A model of images `[32, 32, 3]`.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp
    >>> params = jax.eval_shape(fl.models.cifar_cnn().init, jax.random.key(0), {"x": jnp.zeros((32, 32, 3))})
    >>> sum(x.size for x in jax.tree.leaves(params))
    2168362
    """
    return plain_cnn("cifar_cnn", classes, dropout, blocks=((32, 32), (64, 64)), hidden=(512,), image=(32, 32, 3))


def feddyn_cnn(classes: Whole = 10) -> Model:
    """FedDyn's network for CIFAR, 0.8 million parameters, which many later tables use.

    Twice: a convolution 5x5 of 64 channels without padding, ReLU and max pooling 2x2. Then dense layers of 384 and 192 with ReLU, a
    dense layer of `classes`. (Without the padding, cropping and local response normalisation of TensorFlow's tutorial, which
    McMahan et al. took.)

    Args:
        classes: outputs; 10 or 100.

    Returns:
        A model of images `[32, 32, 3]`.

    Source: Acar et al., "Federated Learning Based on Dynamic Regularization" (2021), section 4, and its code.

    >>> import jax, jax.numpy as jnp
    >>> sum(x.size for x in jax.tree.leaves(jax.eval_shape(feddyn_cnn().init, jax.random.key(0), {"x": jnp.zeros((32, 32, 3))})))
    797962
    """
    blocks, hidden, image = ((64,), (64,)), (384, 192), (32, 32, 3)
    return plain_cnn("feddyn_cnn", classes, blocks=blocks, window=5, padding="VALID", hidden=hidden, image=image, apart=1)


def lenet5(classes: Whole = 10, *, padding: Whole = 0) -> Model:
    """LeNet-5 as papers on federated learning use it: ReLU and max pooling, and every convolution sees all channels.

    Twice: a convolution 5x5 without padding, of 6 and then of 16 channels, ReLU and max pooling 2x2. Then dense layers of 120 and 84
    with ReLU, a dense layer of `classes`. Of ten classes it has 44,426 parameters for images 28x28x1; 61,706 for these with
    `padding=2`, or for 32x32x1; 62,006 for 32x32x3.

    Args:
        classes: outputs.
        padding: rows and columns of zeros around the image; 2 makes the 32x32 of LeCun et al. out of 28x28.

    Returns:
        A model of images `[height, width, channels]` or `[height, width]`, 16 x 16 or larger.

    Source: LeCun et al., "Gradient-Based Learning Applied to Document Recognition" (1998), section II.B, there with tanh, trained
    subsampling and a sparse second convolution; in this form Li et al., "Federated Learning on Non-IID Data Silos" (2022), section V.

    >>> import jax, jax.numpy as jnp
    >>> sum(x.size for x in jax.tree.leaves(jax.eval_shape(lenet5().init, jax.random.key(0), {"x": jnp.zeros((28, 28, 1))})))
    44426
    """
    margin = a_count("lenet5", "padding", padding, least=0)
    return plain_cnn("lenet5", classes, blocks=((6,), (16,)), window=5, padding="VALID", margin=margin, hidden=(120, 84), apart=1)
