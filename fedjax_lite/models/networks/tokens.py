"""Examples as sequences of tokens."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def embed(name: str, table: ArrayLike, x: ArrayLike) -> jax.Array:
    """Return each token's row of the table `[vocabulary, width]`, NaN for a token outside the vocabulary.

    Raises:
        ValueError: for examples that are no tokens `[time]`; says the model's `name`.

    >>> embed("char_lstm", jnp.array([[1.0], [2.0]]), jnp.array([[1, 0, 2, -1]])).ravel().tolist()
    [2.0, 1.0, nan, nan]
    """
    table, x = jnp.asarray(table), jnp.asarray(x)
    if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(
            f"{name}: x of an example must be integer tokens [time], got {x.dtype}{list(x.shape[1:])}: encode the text, or cast it"
        )
    # jnp.take gives NaN past the end, but counts a negative index from the end.
    return jnp.take(table, jnp.where(x < 0, len(table), x), axis=0)
