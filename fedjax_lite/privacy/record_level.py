"""Record-level differential privacy: the gradient of a client's batch, private for each of its examples (DP-SGD)."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fedjax_lite import forms, tree
from fedjax_lite.base import Batch, Key, Mean, Number, Tree
from fedjax_lite.clip import clipped, normal_like
from fedjax_lite.models.loss_fn import STATISTICS, LossFn, loss_and_gradient
from fedjax_lite.refuse import integer, positive
from fedjax_lite.streams import HIGH_STREAM

__all__ = ["record_level"]

_NOISE = np.uint32(HIGH_STREAM + 1)  # stream of a step's key for the noise; the optimizer draws from HIGH_STREAM

# loss_fn, params, batch, key -> (loss, sums), gradient
Gradients = Callable[[LossFn, Tree, Batch, Key], tuple[tuple[Array, dict[str, Mean]], Tree]]


def record_level(clip: Number, noise_multiplier: Number, batch_size: Number, microbatch: int | None = None) -> Gradients:
    r"""The gradient of a batch in which each example's own is cut to a norm, with Gaussian noise on their sum; for `fl.sgd_work`.

    g = (sum_i g_i min(1, C / ||g_i||) + N(0, (z C)^2 I)) / B,   g_i = grad of example i's loss, over the batch's real examples.

    Guarantees:
        1. One example more or less in a batch moves the sum before noise by at most C, whatever its gradient, finite or not (up to
           rounding).
        2. The divisor does not depend on how many examples are real.
        3. Noise is drawn anew for each client, round and step, in full also where a batch is short.
        4. Rows that are masked do not matter, whatever they hold.
    In every local epoch an example is in exactly one batch, so it meets the Gaussian mechanism as often as its client's epochs and rounds
    say, a part of an epoch being one: `fl.privacy.epsilon(z, 1.0, epochs * rounds, delta)`, rounds being those that its client takes part
    in, for one example made blank (its gradient 0) while the client's number of examples, and with it the batches of the others, stay as
    they are; replaced by another it moves a sum by 2 C, so give z / 2. Batches are shuffled, not Poisson samples, so the smaller numbers
    of a sampling rate do not apply. Covered is the model that a client sends, by each of its steps; its losses and metrics are not, nor
    an optimizer that reads the loss.

    Args:
        clip: C > 0, the norm over all of one example's gradient.
        noise_multiplier: z >= 0; 0 is no noise and no guarantee.
        batch_size: B > 0, the divisor: that of `fl.Batches(size=B)`.
        microbatch: m, how many examples' gradients are in memory at a time; None: the whole batch's. A CPU always takes one at a time,
            which is fastest there.

    Returns:
        `(loss_fn, params, batch, key) -> ((loss, sums), gradient)`: the mean loss of the real examples (a float scalar), and the sums
        behind it and behind each metric, all without noise; the gradient like params. Each example is given to loss_fn as a batch of
        one, with the same key.

    Raises:
        ValueError: for numbers out of range.

    >>> import optax, fedjax_lite as fl
    >>> gradients = record_level(clip=1.0, noise_multiplier=1.0, batch_size=20, microbatch=5)
    >>> work = fl.sgd_work(lambda params, batch, key: (params - batch["x"]) ** 2, optax.sgd(0.1), gradients=gradients)

    Source: Abadi et al. 2016, "Deep learning with differential privacy", algorithm 1.
    """
    positive("record_level", "clip", clip)
    positive("record_level", "noise_multiplier", noise_multiplier, or_zero=True)
    positive("record_level", "batch_size", batch_size)
    if microbatch is not None:
        integer("record_level", "microbatch", microbatch, least=1)

    def gradients(loss_fn, params, batch, key):
        if getattr(loss_fn, "of_whole_client", False):
            raise ValueError(
                "record_level: the loss of an example depends on its client's other examples, by its class_counts: give the counts of a "
                "public set, [classes]"
            )

        def of_example(example, mask):
            alone = batch._replace(examples=jax.tree.map(lambda x: x[None], example), mask=mask[None])
            (_, sums), gradient = loss_and_gradient(loss_fn, params, alone, key)
            if STATISTICS in sums:
                raise ValueError(
                    "record_level: the model's running statistics are of a batch's examples, unclipped and without noise: take "
                    'statistics="frozen", or layers without statistics (GroupNorm, LayerNorm)'
                )
            return clipped(gradient, clip)[0], sums  # 0 for a masked example: its gradient is 0, or not finite and cut to 0

        def summed(examples, mask):
            return jax.tree.map(lambda x: jnp.sum(x, axis=0), jax.vmap(of_example)(examples, mask))

        # On a CPU XLA multiplies a stack of matrices up to twenty times slower than the matrices one after another.
        by_rows, by_parts = partial(_summed_in_turn, summed, width=1), partial(_summed_in_turn, summed, width=microbatch)
        total, sums = forms.by_platform(batch.examples, batch.mask, cpu=by_rows, accelerator=by_parts)
        noise = normal_like(jax.random.fold_in(key, _NOISE), total, noise_multiplier * clip)
        gradient = jax.tree.map(lambda x, y: (x + y) / jnp.asarray(batch_size, x.dtype), total, noise)
        loss, count = sums["loss"]
        return (loss / jnp.where(count > 0, count, 1), sums), tree.cast_like(gradient, params)

    setattr(gradients, "private", True)  # for sgd_work: no optimizer may read the loss and metrics, which have no noise
    return gradients


def _summed_in_turn(summed: Callable[[Tree, Array], Tree], examples: Tree, mask: Array, width: int | None) -> Tree:
    """Add up `summed(examples, mask)` over chunks of `width` rows; masked rows fill up the last chunk."""
    rows = mask.shape[0]
    if width is None or width >= rows:
        return summed(examples, mask)
    parts = -(-rows // width)
    index = jnp.arange(parts * width)
    if parts * width != rows:
        examples, mask = tree.take(examples, index), tree.take(mask, index) & (index < rows)
    chunks = jax.tree.map(lambda x: x.reshape(parts, width, *x.shape[1:]), (examples, mask))
    shapes = jax.eval_shape(summed, *jax.tree.map(lambda x: x[0], chunks))
    return jax.lax.scan(lambda total, chunk: (jax.tree.map(jnp.add, total, summed(*chunk)), None), tree.zeros(shapes), chunks)[0]
