"""A small decoder of transformer blocks for the next token."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedjax_lite.base import Whole
from fedjax_lite.models.linen import from_linen
from fedjax_lite.models.model import Model
from fedjax_lite.models.networks.rows import by_rows
from fedjax_lite.models.networks.tokens import embed
from fedjax_lite.refuse import a_count, is_number

_BASE = 10_000.0  # of the wavelengths of rotary positions
_SPREAD = 0.02  # standard deviation of weights at first, GPT-2's


def rotate(x: jax.Array) -> jax.Array:
    """Turn pairs of features by angles that grow with the position, so that products depend on distances alone.

        (x_j, x_{j+d/2}) -> (x_j cos - x_{j+d/2} sin, x_j sin + x_{j+d/2} cos),   angle t 10000^(-2j/d)

    Args:
        x: `[batch, heads, time, d]`, d even.

    Returns:
        x turned, of the same shape and dtype.

    >>> rotate(jnp.array([1.0, 0.0]).reshape(1, 1, 1, 2)).ravel().tolist()  # position 0 stays
    [1.0, 0.0]

    Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021, equation 34.
    """
    time, half = x.shape[2], x.shape[-1] // 2
    angle = jnp.arange(time)[:, None] * _BASE ** (-jnp.arange(half) / half)[None]
    cos, sin = (jnp.expand_dims(turn(angle), (0, 1)).astype(x.dtype) for turn in (jnp.cos, jnp.sin))
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


def _attention(query, key, value, mask):
    """Return each query's mean over values: `[batch, heads, time, d]`."""
    # Thrice as fast on a CPU as jax.nn.dot_product_attention, which has the heads behind the time.
    scores = jnp.einsum("bhtd,bhsd->bhts", query, key) * query.shape[-1] ** -0.5
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    weights = jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(scores.dtype).min), axis=-1)
    return jnp.einsum("bhts,bhsd->bhtd", weights.astype(value.dtype), value)


def _dense(width: int, spread: float) -> nn.Dense:
    """Make a dense layer whose weights start normal."""
    return nn.Dense(width, kernel_init=nn.initializers.normal(spread), dot_general=by_rows)


class _Block(nn.Module):
    heads: int
    rotary: bool
    dropout: float
    spread: float  # of the layers whose results are added

    @nn.compact
    def __call__(self, x, mask, train):
        batch, time, width = x.shape
        drop = nn.Dropout(self.dropout, deterministic=not train)
        qkv = _dense(3 * width, _SPREAD)(nn.LayerNorm(epsilon=1e-5)(x))
        query, key, value = jnp.split(qkv.reshape(batch, time, 3 * self.heads, -1).swapaxes(1, 2), 3, axis=1)
        if self.rotary:
            query, key = rotate(query), rotate(key)
        seen = _attention(query, key, value, mask).swapaxes(1, 2).reshape(x.shape)
        x = x + drop(_dense(width, self.spread)(seen))
        y = nn.gelu(_dense(4 * width, _SPREAD)(nn.LayerNorm(epsilon=1e-5)(x)))
        return x + drop(_dense(width, self.spread)(y))


class _Decoder(nn.Module):
    vocabulary: int
    width: int
    layers: int
    heads: int
    length: int  # of learned positions; 0: rotary
    padding: int | None
    dropout: float

    @nn.compact
    def __call__(self, x, train=False):
        table = self.param("embedding", nn.initializers.normal(_SPREAD), (self.vocabulary, self.width))
        h, time = embed("transformer", table, x), x.shape[-1]
        if self.length:
            if time > self.length:
                raise ValueError(
                    f"transformer: sequences of {time} tokens are longer than length={self.length}: make it {time}, or cut them"
                )
            positions = self.param("positions", nn.initializers.normal(_SPREAD), (self.length, self.width))
            h = h + positions[None, :time]
        mask = jnp.tri(time, dtype=bool)[None, None]
        if self.padding is not None:  # a token sees itself even if it is padding, since a softmax needs one
            mask = mask & ((x != self.padding)[:, None, None] | jnp.eye(time, dtype=bool)[None, None])
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        for _ in range(self.layers):
            h = _Block(self.heads, not self.length, self.dropout, _SPREAD / (2 * self.layers) ** 0.5)(h, mask, train)
        return nn.LayerNorm(epsilon=1e-5)(h)


def transformer(
    vocabulary: Whole = 90,
    *,
    width: Whole = 128,
    layers: Whole = 2,
    heads: Whole = 4,
    positions: str = "rotary",
    length: Whole = 1024,
    padding: int | None = None,
    dropout: float = 0.0,
) -> Model:
    """A causal decoder: at every position logits of the next token, made of it and of those before it.

        x <- x + Attention(LayerNorm(x)),   x <- x + W_2 GELU(W_1 LayerNorm(x)),   z = LayerNorm(x) E^T

    E is the embedding, shared with the output; W_1 is four times as wide as the model; GELU is the tanh form. With V tokens, width w and
    l layers V w + l (12 w^2 + 13 w) + 2 w parameters, and w for each learned position: GPT-2's 124,439,808 with V = 50,257, w = 768,
    l = heads = 12 and 1024 learned positions; 408,320 by default.

    Args:
        vocabulary: number of tokens, and of outputs.
        width: of the embedding and of every layer.
        layers: blocks of attention and two dense layers.
        heads: of attention, side by side, each of width / heads.
        positions: "rotary", distances turn queries and keys; or "learned", a vector is added for each position.
        length: learned positions, the longest sequence; rotary ones have no end.
        padding: a token that no other sees, wherever it stands; None for none. What is predicted at padding is the loss's to ignore.
        dropout: rate on the embedding and on what each half of a block adds, in training.

    Returns:
        A model of examples `{"x": [time]}`, integers, with logits `[batch, time, vocabulary]`. A token outside the vocabulary makes its
        sequence NaN.

    Raises:
        ValueError: a size below 1, heads that do not divide the width (or leave an odd one to rotary positions), other positions, a rate
            outside [0, 1); when applied, tokens that are not integers `[batch, time]`, and sequences longer than learned positions.

    >>> model = transformer(11, width=8, layers=1, heads=2)
    >>> params = model.init(jax.random.key(0), {"x": jnp.zeros(5, jnp.int32)})
    >>> model.apply(params, {"x": jnp.zeros((3, 5), jnp.int32)}, None).shape
    (3, 5, 11)

    Vaswani et al., Attention Is All You Need, 2017; normalised before each half of a block and initialised as Radford et al., Language
    Models are Unsupervised Multitask Learners, 2019 (GPT-2); Su et al., RoFormer, 2021; Press and Wolf, Using the Output Embedding to
    Improve Language Models, 2017.
    """
    given = {"vocabulary": vocabulary, "width": width, "layers": layers, "heads": heads, "length": length}
    sizes: dict[str, Any] = {key: a_count("transformer", key, size) for key, size in given.items()}
    if positions not in ("rotary", "learned"):
        raise ValueError(f'transformer: positions must be "rotary" or "learned", got {positions!r}')
    if sizes["width"] % sizes["heads"] or (positions == "rotary" and sizes["width"] // sizes["heads"] % 2):
        even = ", each of an even width for rotary positions" if positions == "rotary" else ""
        raise ValueError(f"transformer: heads={heads} must divide width={width}{even}")
    if not is_number(dropout) or not 0 <= dropout < 1:
        raise ValueError(f"transformer: dropout must be a rate in [0, 1), got {dropout!r}")
    sizes["length"] *= positions == "learned"
    body = from_linen(_Decoder(padding=padding, dropout=float(dropout), **sizes))

    def head(params, features):
        return by_rows(features, params["embedding"].T, None)

    return Model(body.init, lambda params, batch, key=None: head(params, body.apply(params, batch, key)), body.apply, head)
