"""The losses of labelled examples, by name."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp

from fedjax_lite.base import Number, Tree
from fedjax_lite.models.loss_fn import LossFn, facts_asked, with_facts
from fedjax_lite.models.losses.labels import check_data
from fedjax_lite.models.losses.options import Options, ask, checked
from fedjax_lite.models.losses.scores import scores_of
from fedjax_lite.models.losses.sigmoid import sigmoid
from fedjax_lite.models.losses.softmax import softmax
from fedjax_lite.models.model import Model


def supervised(
    model: Model,
    loss: str = "softmax",
    *,
    target: str = "y",
    ignore: int | None = None,
    mean: str = "sequences",
    top: Sequence[int] = (),
    class_weights: Any = None,
    label_smoothing: Number = 0.0,
    focal: Number = 0.0,
    class_counts: Any = None,
) -> LossFn:
    r"""The per-example loss of a model on labelled examples.

    "softmax": -log softmax(z)_y, of a sequence of T positions 1/T sum_t -log softmax(z_t)_{y_t};  "squared": 1/2 |z - y|^2;
    "binary": -y log s(z) - (1 - y) log(1 - s(z)), s the logistic function;  "multilabel": 1/C sum_c of that for each class's label y_c.

    In training alone, p the model's probabilities, evaluation being of the plain loss above:
    class_weights w: w_y times the loss;  label_smoothing e: sum_c -q_c log p_c, q = (1 - e) onehot(y) + e/C;
    focal g: -(1 - p_y)^g log p_y;  class_counts n: -log softmax(z + log n)_y.

    Args:
        model: its outputs are logits `[batch, ..., classes]` for "softmax", predictions `[batch, outputs]` for "squared", a logit for each
            label, `[batch]` or `[batch, 1]`, for "binary", logits `[batch, classes]` for "multilabel".
        loss: "softmax", cross-entropy with labels `[batch, ...]`, which also reports "accuracy"; labels are whole numbers from 0 of any
            dtype, or truth values. "squared", half of the squared distance to targets `[batch]` or `[batch, outputs]`. "binary", of labels
            0 and 1 `[batch]`, and "multilabel", of labels 0 and 1 `[batch, classes]`: "accuracy" is the share of labels on whose side of 0
            the logit is, and "exact_match" that of the examples of which all labels are.
        target: the leaf of an example that is its label.
        ignore: a label whose positions do not count, for instance a sequence's padding, or a class that nobody looked for; an example
            without other positions counts nowhere.
        mean: which mean is taken of sequences. "sequences": of each over its counted positions, then over the sequences, each counting
            once. "tokens": over the counted positions of all sequences together, so that a longer one weighs more; evaluation then
            reports "log_perplexity", the loss, and "perplexity", its exponential.
        top: for each k in it also report "top<k>_accuracy": the label is among the k highest logits (of equal ones the lower class first).
        class_weights: `[classes]`, at least 0; of "binary" two. The mean is over examples, not divided by the weights, so that
            they also tell clients apart that have one class each.
        label_smoothing: e in [0, 1); of "binary" and "multilabel" with C = 2.
        focal: g >= 0; 0 is the plain loss.
        class_counts: n, `[classes]`, how often there is each class, of which a multiple does as well; or `[population, classes]`, each
            client's own (of "softmax"). A class that is not there takes no part in the sum, but where it is the label.

    Returns:
        `(params, batch, key) -> losses [batch]`, or `(losses, {"accuracy": [batch]})`, each a `fl.Mean` where positions or examples do not
        all count the same; key None evaluates (no dropout). It has an argument `mask` if the model's `apply` has one. A label outside the
        classes, or between two, gives NaN; `fl.run` refuses such data beforehand.

    Raises:
        ValueError: for another loss or mean, choices that the loss has no use for, more than one of label_smoothing, focal and
            class_counts; when called, for examples without the leaf, and outputs that do not fit the labels.

    >>> loss = supervised(Model(lambda key, example: (), lambda logits, batch, key: logits), ignore=-1)
    >>> losses, metrics = loss(jnp.zeros((2, 3, 4)), {"y": jnp.array([[0, 1, -1], [-1, -1, -1]])}, None)
    >>> losses.value().tolist(), metrics["accuracy"].value().tolist()
    ([1.3862943649291992, nan], [0.5, nan])

    Sources: label smoothing, Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision", section 7; focal, Lin et al.
    2017, "Focal loss for dense object detection", eq. 4; class weights, King and Zeng 2001, "Logistic regression in rare events data",
    eq. 8; class counts, Ren et al. 2020, "Balanced meta-softmax for long-tailed visual recognition", eq. 3.
    """
    options = checked(Options(model, loss, target, ignore, mean, tuple(top) if isinstance(top, Sequence) else top, class_weights,
                              label_smoothing, focal, class_counts))  # fmt: skip
    of_clients = options.class_counts is not None and options.class_counts.ndim == 2
    found = partial({"softmax": softmax, "squared": _squared}.get(loss, sigmoid), options)
    asked = ({"mask"} & facts_asked(model.apply)) | ({"client"} if of_clients else set())

    def loss_fn(params, batch, key, **beside):
        return found(params, batch, key, **beside)

    made = with_facts(loss_fn, asked)
    setattr(made, "model", model)  # whose parameters a run may write, with the model's name
    setattr(made, "check", partial(check_data, options))
    setattr(made, "scores", partial(scores_of, options))
    setattr(made, "of_whole_client", of_clients)  # for gradients that are private for each example
    return made


def _squared(options: Options, params: Tree, batch: Tree, key: Any, client: Any = None, **mask: Any) -> Any:
    """Take half of the squared distance of the outputs to a batch's targets."""
    del client
    targets, predictions, *statistics = ask(options, params, batch, key, mask)
    if predictions.size != targets.size:
        raise ValueError(
            f"supervised: {predictions.shape[-1]} outputs for targets of shape {targets.shape[1:]}: make the model's outputs match"
        )
    difference = predictions.reshape(len(targets), -1) - targets.reshape(len(targets), -1)  # of a truth value 1 or 0
    losses = 0.5 * jnp.sum(difference**2, axis=-1)
    return (losses, {}, *statistics) if statistics else losses


# The loss of logits that are there already: a model whose parameters are its outputs.
of_logits = supervised(Model(lambda key, example: (), lambda logits, batch, key: logits))
