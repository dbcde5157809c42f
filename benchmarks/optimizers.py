"""What every optimizer of optax does here, at a client and at the server: prints the table of docs/optimizers.md.

Sixty rounds of three clients on one least-squares problem, three local steps a round, from zero; at the server over plain SGD at the
clients. "learns": the loss has halved with a rate of 0.05 or 0.5. What wraps another optimizer is given `optax.sgd`.
"""

import inspect
import logging
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fedjax_lite as fl

ROUNDS, RATES = 60, (0.05, 0.5)
WRAPPERS: dict[str, Callable[[float], optax.GradientTransformation]] = {
    "adaptive_grad_clip": lambda rate: optax.chain(optax.adaptive_grad_clip(1.0), optax.sgd(rate)),
    "apply_every": lambda rate: optax.chain(optax.apply_every(2), optax.sgd(rate)),
    "apply_if_finite": lambda rate: optax.apply_if_finite(optax.sgd(rate), 2),
    "lbfgs, linesearch=None": lambda rate: optax.lbfgs(rate, linesearch=None),
    "lookahead": lambda rate: optax.lookahead(optax.sgd(rate), 2, 0.5),
    "mechanize": lambda rate: optax.contrib.mechanize(optax.sgd(rate)),
    "reduce_on_plateau": lambda rate: optax.chain(optax.sgd(rate), optax.contrib.reduce_on_plateau()),
    "sam": lambda rate: optax.contrib.sam(optax.sgd(rate), optax.sgd(0.05)),
    "schedule_free": lambda rate: optax.contrib.schedule_free(optax.sgd(rate), rate),
    "split_real_and_imaginary": lambda rate: optax.contrib.split_real_and_imaginary(optax.sgd(rate)),
}
NUMBERS = {"learning_rate": 0.0, "noise_multiplier": 0.01, "l2_norm_clip": 1.0, "key": 0}  # what a factory may require
POINTS = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], np.float32)
DATA = fl.data.FederatedData.from_clients([{"x": k * POINTS, "y": k * POINTS @ np.array([1, -2], np.float32)} for k in (0.5, 1, 1.5)])


def factories() -> dict[str, Callable[[float], optax.GradientTransformation]]:
    """Every optimizer of optax by name: what takes a rate, or learns one."""
    found = {}
    for module in (optax, optax.contrib):
        for name, function in vars(module).items():
            if not inspect.isfunction(function) or name.startswith(("_", "scale_by")):
                continue
            signature = inspect.signature(function)
            if "GradientTransformation" not in str(signature.return_annotation) or "learning_rate" not in signature.parameters:
                continue
            needed = [
                p.name for p in signature.parameters.values() if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            ]
            if all(name in NUMBERS for name in needed):
                given = {name: NUMBERS[name] for name in needed}
                found[name] = lambda rate, function=function, given=given: function(**given | {"learning_rate": rate})
    return dict(sorted((WRAPPERS | {k: v for k, v in found.items() if k not in WRAPPERS}).items()))


def losses(params, batch, key):
    return (batch["x"] @ params["w"] - batch["y"]) ** 2


def outcome(make: Callable[[float], optax.GradientTransformation], where: str) -> str:
    """What comes of an optimizer at a "client" or at the "server"."""
    try:
        left = min(_left(make(rate), where) for rate in RATES)
    except ValueError as error:
        return f"refused: {str(error).removeprefix('optimizer: ').split(':')[0]}"
    return "learns" if left < 0.5 else f"slow: {100 * left:.0f} % of the loss left" if left < 1 else "diverges"


def _left(optimizer: optax.GradientTransformation, where: str) -> float:
    """The share of the first loss that is left at the end."""
    local, server = (optimizer, optax.sgd(1.0)) if where == "client" else (optax.sgd(0.02), optimizer)
    algorithm = fl.federate(
        fl.sgd_work(losses, local),
        fl.aggregators.mean(),
        fl.optimizer_server(server),
        batches=fl.Batches(None, steps=3),
        population=3,
        engine=fl.sequential(),
    )

    @jax.jit
    def run(data):
        return fl.simulate(algorithm, data, {"w": jnp.zeros(2)}, fl.sampling.everyone(), rounds=ROUNDS, key=jax.random.key(0))[1]

    loss = run(DATA)["initial_loss"]
    return float(jnp.nan_to_num(loss[-1] / loss[0], nan=jnp.inf))


def table() -> str:
    """All optimizers in Markdown."""
    rows = [f"| `{name}` | {outcome(make, 'client')} | {outcome(make, 'server')} |" for name, make in factories().items()]
    return "\n".join(["| optax | at a client | at the server |", "|---|---|---|", *rows])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    print(table())
