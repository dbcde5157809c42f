"""Refuse optax optimizers whose needs a federated round cannot meet, by the classes in their states."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import optax

from fedjax_lite.base import Tree

__all__ = ["fit", "keeps_rate", "needs_value", "refuse_common_noise", "refuse_restarting"]

# The name of a state's class, since optax exports few of the classes -> its optimizer.
RESTARTING = {
    "ReduceLROnPlateauState": "reduce_on_plateau",
    "ProdigyState": "prodigy, which learns its rate over many steps,",
    "DAdaptAdamWState": "dadapt_adamw, which learns its rate over many steps,",
    "MechanicState": "mechanize, which learns its rate over many steps,",
}
_SEARCH = "a line search calls the loss at several points: take optax.lbfgs(learning_rate, linesearch=None)"
UNFIT = {
    "SAMState": "sam takes two gradients a step: compute both in fl.sgd_work(..., gradients=), with the optimizer that sam would be given",
    "SophiaState": "sophia asks for the loss function beside the gradient: take another, such as optax.adam",
    "LookaheadState": "lookahead trains a pair of models: over clients' steps a server does the same, fl.optimizer_server(optax.sgd(0.5))",
    "ScaleByZoomLinesearchState": _SEARCH,
    "ScaleByBacktrackingLinesearchState": _SEARCH,
}


def fit(optimizer: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """Return `optimizer` with an `init` that refuses optimizers in `UNFIT`, whose needs a federated round cannot meet.

    Raises:
        ValueError: when `init` is called, with the optimizer's name and a replacement.
    """

    def init(params):
        state = optimizer.init(params)
        for node in _nodes(state):
            if reason := UNFIT.get(type(node).__name__):
                raise ValueError(f"optimizer: {reason}")
        return state

    return optimizer._replace(init=init)


@contextmanager
def needs_value(where: str, given: bool) -> Iterator[None]:
    """Explain the TypeError of an optimizer that needs the loss, if `given` is False: no noise hides the loss."""
    try:
        yield
    except TypeError as error:
        if given or "value" not in str(error):
            raise
        raise ValueError(
            f"{where}: the optimizer reads the loss (reduce_on_plateau, polyak_sgd and their kind), which no noise hides: with private "
            "clients take another, or a schedule"
        ) from error


def keeps_rate(state: Tree) -> bool:
    """Return whether a state keeps a rate that `optax.inject_hyperparams` injected."""
    return any(isinstance(node, optax.schedules.InjectStatefulHyperparamsState) for node in _nodes(state))


def refuse_restarting(state: Tree) -> None:
    """Refuse a client optimizer's first state that must not start over in every round, or be equal for all clients.

    Refused are optax's schedule counts (of rates, weight decay, injected hyperparameters), optimizers that learn a rate over many steps,
    and noise keys.
    """
    for node in _nodes(state):
        if name := RESTARTING.get(type(node).__name__):
            raise ValueError(f"{name} in the client optimizer would start over in every round: give it to fl.optimizer_server")
        if _counts(node):
            raise ValueError(
                "the client optimizer holds an optax schedule, and its count would restart every round: pass the factory and "
                "learning_rate=fl.on_round(schedule), fl.on_client_step(schedule) or, to restart on purpose, fl.on_step(schedule)"
            )
    refuse_common_noise(state, "client optimizer")


def refuse_common_noise(state: Tree, where: str) -> None:
    """Refuse a state that holds a random key: every client would start from it and draw the same noise."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if "rng_key" in jax.tree_util.keystr(path) or jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise ValueError(
                f"the {where} keeps a random key in its state{jax.tree_util.keystr(path)}, so all clients would draw the same noise: "
                "write a transformation that draws from the keyword `key`, which differs by client and round"
            )


_COUNTING = (  # states that count steps for a schedule
    optax.ScaleByScheduleState,
    type(jax.eval_shape(optax.add_decayed_weights(lambda count: 0.0).init, ())),  # importing must not start a device
    optax.schedules.InjectStatefulHyperparamsState,
)


def _nodes(state: Tree) -> list:
    """Return the leaves of a state, where a part of a class known here is a leaf."""
    known = RESTARTING.keys() | UNFIT.keys()
    return jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, _COUNTING) or type(x).__name__ in known)


def _counts(node) -> bool:
    """Return whether a part of a state counts steps for a schedule."""
    injected = isinstance(node, optax.schedules.InjectStatefulHyperparamsState)
    return bool(jax.tree.leaves(node.hyperparams_states)) if injected else isinstance(node, _COUNTING)
