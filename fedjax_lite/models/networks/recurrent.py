"""The field's recurrent networks: of characters, and of words."""

from typing import Any

import flax.linen as nn

from fedjax_lite.base import Whole
from fedjax_lite.models.linen import from_linen
from fedjax_lite.models.model import Model
from fedjax_lite.models.networks.rows import by_rows
from fedjax_lite.models.networks.tokens import embed
from fedjax_lite.models.recurrent import LSTM
from fedjax_lite.refuse import a_count


class _NextToken(nn.Module):
    name_of: str  # the model's, for errors
    vocabulary: int
    embedding: int
    hidden: int
    layers: int
    projection: int  # width to which each layer's outputs are projected; 0: none
    spread: float  # standard deviation of the embedding at first

    @nn.compact
    def __call__(self, x):
        table = self.param("embedding", nn.initializers.normal(self.spread), (self.vocabulary, self.embedding))
        h = embed(self.name_of, table, x)
        for layer in range(self.layers):
            h = LSTM(self.hidden, name=f"LSTM_{layer}")(h)
            h = nn.Dense(self.projection, dot_general=by_rows)(h) if self.projection else h
        return nn.Dense(self.vocabulary, dot_general=by_rows)(h)


def char_lstm(vocabulary: Whole = 90, *, embedding: Whole = 8, hidden: Whole = 256, layers: Whole = 2) -> Model:
    """The next-character network of federated Shakespeare: an embedding, LSTM layers and a linear output at every time step.

    Orthogonal recurrent weights for each gate, a forget bias of 1 (Jozefowicz et al., 2015), a standard normal embedding. By default
    820,522 parameters; with the 80 characters of LEAF 817,872.

    Args:
        vocabulary: number of tokens, and of outputs.
        embedding: width of a token's vector.
        hidden: units of each LSTM layer.
        layers: LSTM layers.

    Returns:
        A model of examples `{"x": [time]}`, integers, with logits `[batch, time, vocabulary]`. A token outside the vocabulary makes its
        sequence NaN from there on.

    Raises:
        ValueError: a size below 1; when applied, tokens that are not integers `[batch, time]`.

    >>> import jax, jax.numpy as jnp
    >>> model = char_lstm(hidden=16)
    >>> params = model.init(jax.random.key(0), {"x": jnp.zeros(80, jnp.int32)})
    >>> model.apply(params, {"x": jnp.zeros((4, 80), jnp.int32)}, None).shape
    (4, 80, 90)

    McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, 2017; sizes as in Reddi et al.,
    Adaptive Federated Optimization, 2021, table 4.
    """
    return _next_token("char_lstm", 0, 1.0, vocabulary=vocabulary, embedding=embedding, hidden=hidden, layers=layers)


def word_lstm(vocabulary: Whole = 10_004, *, embedding: Whole = 96, hidden: Whole = 670, layers: Whole = 1) -> Model:
    """The next-word network of federated Stack Overflow: an embedding, LSTM layers, each projected to the embedding's width, an output.

        h_t = LSTM(e(x_t)),   z_t = (h_t P + p) W + b

    Orthogonal recurrent weights and a forget bias of 1 as in `char_lstm`, an embedding uniform between -0.05 and 0.05 in its papers and
    normal of the same spread here. By default 4,050,748 parameters. Whether padding counts is the loss's: `ignore=0` for a padding of 0.

    Args:
        vocabulary: number of tokens, and of outputs: 10,000 words, and padding, beginning, end and any other word.
        embedding: width of a token's vector, and of each projection.
        hidden: units of each LSTM layer.
        layers: LSTM layers, a projection after each.

    Returns:
        A model of examples `{"x": [time]}`, integers, with logits `[batch, time, vocabulary]`. A token outside the vocabulary makes its
        sequence NaN from there on.

    Raises:
        ValueError: a size below 1; when applied, tokens that are not integers `[batch, time]`.

    >>> import jax, jax.numpy as jnp
    >>> params = jax.eval_shape(word_lstm().init, jax.random.key(0), {"x": jnp.zeros(20, jnp.int32)})
    >>> sum(x.size for x in jax.tree.leaves(params))
    4050748

    Hard et al., Federated Learning for Mobile Keyboard Prediction, 2018; sizes as in Reddi et al., Adaptive Federated Optimization,
    2021, table 4.
    """
    return _next_token("word_lstm", embedding, 0.05 / 3**0.5, vocabulary=vocabulary, embedding=embedding, hidden=hidden, layers=layers)


def _next_token(name: str, projection: Whole, spread: float, **sizes: Whole) -> Model:
    """Check the sizes of a network and make its model, with the last dense layer as its head."""
    counts: dict[str, Any] = {key: a_count(name, key, size) for key, size in sizes.items()}
    layers, outputs = counts["layers"], counts["vocabulary"]
    network = _NextToken(name_of=name, projection=int(projection), spread=spread, **counts)
    return from_linen(network, head=(f"Dense_{layers if projection else 0}", nn.Dense(outputs, dot_general=by_rows)))
