"""Methods of optimisation, in step and asynchronous."""

import numpy as np
import optax
from problems import CLASSES, softmax_loss

import fedjax_lite as fl
from contract.models import IN_ONE, IN_TWO
from contract.population import POPULATION


def optimised(name, *optimizer, of=softmax_loss, **own):
    """A method of fl.algorithms, of a loss or a model, as a function of the engine and the rate; with `optimizer` it takes one."""

    def make(engine, rate=0.1):
        given = [factory(rate) for factory in optimizer]
        rates = {} if optimizer else {"learning_rate": rate}
        return getattr(fl.algorithms, name)(
            of, *given, batches=fl.Batches(4, shuffle=False), population=POPULATION, engine=engine, **rates | own
        )

    return make


OPTIMISATION = {
    "fedprox": optimised("fedprox", optax.sgd, mu=0.1),
    "scaffold": optimised("scaffold"),
    "scaffold option 1": optimised("scaffold", option=1),
    "feddyn": optimised("feddyn", alpha=0.1),
    "fednova": optimised("fednova", momentum=0.5, mu=0.1),
    "fedadagrad": optimised("fedadagrad", optax.sgd),
    "fedadam": optimised("fedadam", optax.sgd),
    "fedyogi": optimised("fedyogi", optax.sgd, convention="keras"),
    "fedcm": optimised("fedcm"),
    "fedsam": optimised("fedsam", optax.sgd),
    "fedspeed": optimised("fedspeed"),
    "fedadmm": optimised("fedadmm", rho=0.5),
    "fedlion": optimised("fedlion"),
    "diloco": optimised("diloco", optax.adamw),
    "mime": optimised("mime"),
    "mimelite": optimised("mimelite"),
    "fedexp": optimised("fedexp", optax.sgd),
    "qfedavg": optimised("qfedavg", q=1.0),
    "agnostic_fedavg": optimised("agnostic_fedavg", optax.sgd, gamma=0.1, domains=np.arange(POPULATION) % 3),
    "fedlc": optimised("fedlc", optax.sgd, of=IN_ONE, classes=CLASSES),
    "fedrs": optimised("fedrs", optax.sgd, of=IN_ONE, classes=CLASSES),
    "moon": optimised("moon", optax.sgd, of=IN_TWO._replace(apply=IN_ONE.apply)),
}
ASYNCHRONOUS = {
    "fedbuff": optimised("fedbuff", optax.sgd, buffer=4, window=3, divide_by="weights"),
    "fedasync": optimised("fedasync", optax.sgd, window=3),
    "fedat": optimised("fedat", optax.sgd, tiers=2, buffer=4, mu=0.1),
}
