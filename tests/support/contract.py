"""What keeps the contract: every aggregator, client work, uplink and algorithm. A new one is tested by adding its line to a list."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from problems import CLASSES, FEATURES, SIZES, softmax_data, softmax_loss

import fedjax_lite as fl
from fedjax_lite import aggregators, distill
from fedjax_lite.models.loss_fn import losses_and_metrics

POPULATION = len(SIZES)
DATA = dict(sizes=(5, 1, 12, 3, 8, 0, 7), empty=True)


def contract_data():
    """Ragged clients, one without an example."""
    return _in_precision(jax.config.jax_enable_x64)


@functools.cache
def _in_precision(double):
    return softmax_data(**DATA)


def assert_close(a, b, tolerance=1e-10):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(plain(x), plain(y), rtol=tolerance, atol=tolerance), a, b)


def plain(x):
    return np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x)


def median_of_means(groups):
    def reduce(messages, cohort):
        del cohort
        return jax.tree.map(lambda x: jnp.median(x.reshape(groups, -1, *x.shape[1:]).mean(1), axis=0), messages)

    return aggregators.from_stack(reduce)


def distributed(kind):
    return kind(clip=1.0, noise_multiplier=0.5, clients_per_round=4, dimension=8)


# name -> aggregator. One line a rule, in the group whose tests ask it.
SUMS = {
    "mean": aggregators.mean(),
    "weighted_mean": aggregators.weighted_mean(),
    "weighted_mean uniform": aggregators.weighted_mean("uniform"),
    "weighted_mean capped": aggregators.weighted_mean(cap=4),
    "weighted_mean own": aggregators.weighted_mean(jnp.arange(1.0, POPULATION + 1)),
    "weighted_sum": aggregators.weighted_sum(),
    "weighted_mean function": aggregators.weighted_mean(lambda client: 1.0 / client.size),
    "from_sum": aggregators.from_sum(
        lambda m, c: (m, 1.0), lambda s: jax.tree.map(lambda x: x / jnp.maximum(s[1], 1).astype(x.dtype), s[0])
    ),
}
COORDINATES = {
    "median": aggregators.median(),
    "trimmed_mean": aggregators.trimmed_mean(num_byzantine=1),
    "meamed": aggregators.meamed(num_byzantine=1),
    "weighted_median": aggregators.weighted_median(),
}
DISTANCES = {
    "krum": aggregators.krum(num_byzantine=1),
    "multi_krum": aggregators.multi_krum(num_byzantine=1, num_selected=2, neighbors="byzfl"),
    "bulyan": aggregators.bulyan(num_byzantine=0),
    "geometric_median": aggregators.geometric_median(),
    "mda": aggregators.mda(num_byzantine=1),
    "caf": aggregators.caf(num_byzantine=1),
}
BOUNDED = {
    "centered_clipping": aggregators.centered_clipping(radius=1e3),
    "centered_clipping twice": aggregators.centered_clipping(radius=1e3, iterations=2),
    "norm_bounding": aggregators.norm_bounding(max_norm=1e3),
    "sign_majority": aggregators.sign_majority(learning_rate=0.1),
    "rlr": aggregators.rlr(threshold=1),
    "fltrust": aggregators.fltrust(trusted=0),
    "monna": aggregators.monna(num_byzantine=1, trusted=0),
}
BEHIND = {
    "nnm": aggregators.nnm(aggregators.krum(num_byzantine=1), num_byzantine=1),
    "bucketing": aggregators.bucketing(aggregators.trimmed_mean(num_byzantine=1), size=2),
    "arc": aggregators.arc(aggregators.mean(), num_byzantine=1),
}
SECURE = {
    "secure_mean": aggregators.secure_mean(),
    "secure_mean ring": aggregators.secure_mean(bound=8.0, neighbors=2),
    "ddgauss": distributed(aggregators.ddgauss),
    "skellam": distributed(aggregators.skellam),
}
PRIVATE = {
    "dp_mean": aggregators.dp_mean(clip=1e6, noise_multiplier=0.0, clients_per_round=4),
    "dp_mean adaptive": aggregators.dp_mean(clip=0.1, noise_multiplier=0.1, clients_per_round=4, quantile=0.5, weights="examples", cap=9),
    "dp_ftrl": aggregators.dp_ftrl(clip=0.1, noise_multiplier=0.1, clients_per_round=4, rounds=20),
}
AGGREGATORS = SUMS | COORDINATES | DISTANCES | BOUNDED | BEHIND | SECURE | PRIVATE

# Rules that refuse one client, because they need more for the f given above.
MORE_THAN_ONE = "trimmed_mean meamed krum multi_krum bulyan monna mda caf nnm bucketing arc".split()
NOISY = "dp_mean adaptive", "dp_ftrl"
NOISE_OF_CLIENTS = "ddgauss", "skellam"
# Rules with other settings, and one that differs from another in its draws: the slow tests ask of these what the deeper ones ask of others.
VARIANTS = [name for name in AGGREGATORS if " " in name] + ["skellam"]
ONE_OF_EACH = [name for name in AGGREGATORS if name not in VARIANTS]


def random_sgd(rate):
    """A step times a random factor drawn from the keyword `key`: of the optimizer, the uplink or the server."""

    def update(updates, state, params=None, *, key, **extra):
        factor = jax.random.uniform(key)
        return jax.tree.map(lambda u: (-rate * factor).astype(u.dtype) * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: (), update)


def noisy_work(rate):
    """SGD on a loss that draws from its key, from a point that each client keeps and drew at the start."""

    def loss(params, batch, key):
        losses, metrics = softmax_loss(params, batch, key)
        return losses * jax.random.uniform(key, losses.shape), metrics

    plain = fl.sgd_work(loss, random_sgd(rate))

    def start(shared, own, client):
        carry = plain.start(shared, (), client)
        return carry._replace(params=carry.params + own * 1e-2)

    def finish(shared, own, carry, client):
        message, _, metrics = plain.finish(shared, own, carry, client)
        return message, jnp.mean(carry.params), metrics

    return fl.ClientWork(lambda params, key: jax.random.normal(key), start, plain.step, finish)


# name -> a function of the learning rate.
WORKS = {
    "sgd": lambda rate: fl.sgd_work(softmax_loss, optax.sgd(rate)),
    "momentum": lambda rate: fl.sgd_work(softmax_loss, optax.sgd(rate, momentum=0.9)),
    "adam": lambda rate: fl.sgd_work(softmax_loss, optax.adam(rate)),
    "scheduled": lambda rate: fl.sgd_work(
        softmax_loss, optax.sgd, learning_rate=fl.on_client_step(lambda t: rate / (1 + t)), epoch_decay=0.9
    ),
    "measured": lambda rate: fl.sgd_work(softmax_loss, optax.sgd(rate), initial_loss="epoch", gradient_norm=True),
}


def federate(work=None, aggregator=None, server=None, engine=None, uplink=None, batches=None):
    return fl.federate(
        work or WORKS["sgd"](0.1),
        aggregator or aggregators.weighted_mean(),
        server or fl.optimizer_server(optax.sgd(1.0)),
        batches=batches or fl.Batches(4, epochs=2, shuffle=False),  # the shuffle would be a fifth of every program
        population=POPULATION,
        engine=engine,
        uplink=uplink,
    )


# name -> a function of the engine and the learning rate.
ALGORITHMS = {f"work {name}": (lambda engine, rate=0.1, work=work: federate(work(rate), engine=engine)) for name, work in WORKS.items()} | {
    "median": lambda engine, rate=0.1: federate(WORKS["sgd"](rate), AGGREGATORS["median"], engine=engine),
    "own weights": lambda engine, rate=0.1: federate(WORKS["sgd"](rate), AGGREGATORS["weighted_mean own"], engine=engine),
    "fedavg": lambda engine, rate=0.1: fl.algorithms.fedavg(
        softmax_loss, optax.sgd(rate), batches=fl.Batches(4, steps=3), population=POPULATION, engine=engine
    ),
    "fedavgm": lambda engine, rate=0.1: fl.algorithms.fedavgm(
        softmax_loss, optax.sgd(rate), batches=fl.Batches(4), population=POPULATION, engine=engine
    ),
    "fedsgd": lambda engine, rate=0.1: fl.algorithms.fedsgd(softmax_loss, population=POPULATION, learning_rate=rate, engine=engine),
    "adam server": lambda engine, rate=0.1: federate(WORKS["sgd"](rate), server=fl.optimizer_server(optax.adam(0.01)), engine=engine),
    "adaptive rate": lambda engine, rate=0.1: federate(
        fl.sgd_work(softmax_loss, optax.sgd(rate), gradient_norm=True),
        server=fl.adaptive_rate(fl.optimizer_server(optax.sgd(1.0))),
        engine=engine,
    ),
    "plateau": lambda engine, rate=0.1: federate(
        WORKS["sgd"](rate),
        server=fl.optimizer_server(optax.chain(optax.sgd(1.0), optax.contrib.reduce_on_plateau(patience=1))),
        engine=engine,
    ),
    "random at every place": lambda engine, rate=0.1: federate(
        noisy_work(rate), server=fl.optimizer_server(random_sgd(0.5)), uplink=random_sgd(-1.0), engine=engine
    ),
    "uplink with state": lambda engine, rate=0.1: federate(
        WORKS["sgd"](rate), uplink=optax.chain(optax.clip_by_global_norm(0.1), optax.trace(0.5)), engine=engine
    ),
}
UPLINKS = {
    "top_k": fl.uplink.error_feedback(fl.uplink.top_k(0.25)),
    "random_k": fl.uplink.random_k(0.25),
    "uniform": fl.uplink.uniform(4),
    "rotate": fl.uplink.rotate(fl.uplink.terngrad()),
    "qsgd": fl.uplink.qsgd(4),
    "sign": fl.uplink.sign(),
    "scaled_sign": fl.uplink.error_feedback(fl.uplink.scaled_sign()),
    "terngrad": optax.chain(optax.clip_by_global_norm(1.0), fl.uplink.terngrad()),
    "drive": fl.uplink.drive(),
    "eden": fl.uplink.eden(bits=2),
    "power_sgd": fl.uplink.power_sgd(1),
}
ALGORITHMS |= {
    f"uplink {name}": (lambda engine, rate=0.1, uplink=uplink: federate(WORKS["sgd"](rate), uplink=uplink, engine=engine))
    for name, uplink in UPLINKS.items()
}


def distilled(engine, rate, models=False, several=False):
    """A round of distillation: models travel, or stay and learn what was agreed on; of one architecture, or of two families."""
    public = distill.public_set({"x": np.random.default_rng(7).normal(size=(9, FEATURES))}, np.arange(9) % CLASSES)
    ensemble, how = distill.mean_probabilities(), distill.lessons(optax.sgd(0.5), 2, batch_size=4)
    apply = lambda params, batch, key: batch["x"] @ params  # noqa: E731
    work = WORKS["sgd"](rate) if models else distill.digest_work(WORKS["sgd"](rate), apply, public, how)
    uplink = distill.soft_labels(apply, public, ensemble, model=models)
    built = fl.federate(
        [fl.Family(work, 3, uplink), fl.Family(work, POPULATION - 3, uplink)] if several else work,
        distill.ensemble_aggregator(ensemble, aggregators.mean(), aggregators.weighted_mean() if models else None, public),
        distill.distillation_server(how, apply, public) if models else distill.consensus_server(public, CLASSES),
        batches=fl.Batches(4), population=POPULATION, uplink=None if several else uplink, engine=engine,
    )  # fmt: skip
    return built._replace(init=lambda params, key: built.init((params, 2 * params), key)) if several else built


def features(params, batch, key):
    """Those of a model in two halves."""
    del key
    return jnp.tanh(batch["x"] @ params)


IN_TWO = fl.models.Model(None, None, features, lambda params, features: 2 * features)


def fedgkt(engine, rate):
    server = fl.models.Model(None, lambda params, batch, key: batch["x"] @ params), 0.1 * jnp.eye(CLASSES)
    return fl.algorithms.fedgkt(
        IN_TWO, server, optax.sgd(rate), optax.sgd(0.1, momentum=0.9), example=contract_data().example, largest=max(DATA["sizes"]),
        population=POPULATION, classes=CLASSES, batches=fl.Batches(4), server_batch_size=5, engine=engine,
    )  # fmt: skip


def fedgen(engine, rate):
    first = jnp.asarray(np.random.default_rng(3).normal(size=(2 + CLASSES, CLASSES)))
    generator = fl.algorithms.Generator(first, lambda params, *noise_and_labels: jnp.tanh(jnp.hstack(noise_and_labels) @ params), 2)
    return fl.algorithms.fedgen(
        IN_TWO, generator, optax.sgd(rate), batches=fl.Batches(4), population=POPULATION,
        classes=CLASSES, generator_batch_size=4, generator_steps=2, engine=engine,
    )  # fmt: skip


ALGORITHMS |= {
    "fedgkt": lambda engine, rate=0.1: fedgkt(engine, rate),
    "fedgen": lambda engine, rate=0.1: fedgen(engine, rate),
    "distilled": lambda engine, rate=0.1: distilled(engine, rate, models=True),
    "families that keep their models": lambda engine, rate=0.1: distilled(engine, rate, several=True),
    "fd": lambda engine, rate=0.1: fl.algorithms.fd(
        fl.models.Model(None, lambda params, batch, key: batch["x"] @ params), optax.sgd(rate), CLASSES,
        batches=fl.Batches(4), population=POPULATION, engine=engine,
    ),
}  # fmt: skip


IN_ONE = fl.models.Model(None, lambda params, batch, key: 2 * features(params, batch, key))


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
ALGORITHMS |= OPTIMISATION | ASYNCHRONOUS


def in_leaves(params, batch, key):
    """The loss of a model with a body and a head."""
    return softmax_loss(params["body"] * (1 + params["head"][None]), batch, key)


def personal(name, **own):
    """A method of fl.algorithms of which some leaves stay, as a function of the engine and the rate."""

    def make(engine, rate=0.1):
        batches = fl.Batches(4, epochs=2, shuffle=False)
        built = getattr(fl.algorithms, name)(in_leaves, optax.sgd(rate), batches=batches, population=POPULATION, engine=engine, **own)
        return built._replace(init=lambda params, key: built.init({"body": params, "head": jnp.zeros(CLASSES)}, key))

    return make


def in_statistics(params, batch, key, mask=None):
    """The loss of a model with a running mean of its inputs, which evaluation takes off."""
    leaves, running = params
    if key is None:
        return softmax_loss(leaves, batch | {"x": batch["x"] - running[None]}, key)
    mean = jnp.sum(jnp.where(mask[:, None], batch["x"], 0), 0) / jnp.maximum(jnp.sum(mask), 1)
    return *losses_and_metrics(softmax_loss(leaves, batch | {"x": batch["x"] - mean[None]}, key)), 0.9 * running + 0.1 * mean


def with_statistics(engine, rate=0.1):
    """FedAdam on a model with running statistics."""
    batches = fl.Batches(4, epochs=2, shuffle=False)
    built = fl.algorithms.fedadam(in_statistics, optax.sgd(rate), batches=batches, population=POPULATION, engine=engine)
    return built._replace(init=lambda params, key: built.init(fl.models.WithStatistics(params, jnp.zeros(len(params))), key))


def fedproto(engine, rate=0.1):
    families = [IN_TWO._replace(apply=IN_ONE.apply)], [POPULATION]
    batches = fl.Batches(4, shuffle=False)
    built = fl.algorithms.fedproto(*families, optax.sgd(rate), CLASSES, example=contract_data().example, batches=batches, engine=engine)
    return built._replace(init=lambda params, key: built.init((params,), key))


BODY_AND_HEAD = fl.models.Model(
    None,
    lambda params, batch, key: features(params["body"], batch, key) * params["head"][None],
    lambda params, batch, key: features(params["body"], batch, key),
    lambda params, features: features * params["head"][None],
)


def fedrod(engine, rate=0.1):
    built = optimised("fedrod", optax.sgd, of=BODY_AND_HEAD, classes=CLASSES, personal="head")(engine, rate)
    return built._replace(init=lambda params, key: built.init({"body": params, "head": jnp.ones(CLASSES)}, key))


PERSONAL = {
    "running statistics": with_statistics,
    "fedbn": personal("fedbn", personal="head"),
    "fedper": personal("fedper", personal="head"),
    "fedrep": personal("fedrep", personal="head", head_epochs=1),
    "fedbabu": personal("fedbabu", fixed="head"),
    "lg_fedavg": personal("lg_fedavg", personal="body"),
    "ditto": optimised("ditto", optax.sgd, lam=0.5),
    "apfl": optimised("apfl"),
    "pfedme": optimised("pfedme", lam=1.0, inner_rate=0.1, inner_steps=2),
    "per_fedavg": optimised("per_fedavg", optax.sgd, alpha=0.1),
    "ifca": optimised("ifca", optax.sgd, clusters=2),
    "fedala": optimised("fedala", optax.sgd),
    "fedproto": fedproto,
    "fedrod": fedrod,
}
ALGORITHMS |= PERSONAL

# The groups whose tests ask them.
SERVERS = "median", "own weights", "adam server", "adaptive rate", "plateau"
AVERAGES = "fedavg", "fedavgm", "fedsgd"
DRAWING = "random at every place", "uplink with state"
DISTILLED = "distilled", "families that keep their models", "fd"
SPARSE = tuple(f"uplink {name}" for name in ("top_k", "random_k", "power_sgd"))
ROTATED = tuple(f"uplink {name}" for name in ("rotate", "drive", "eden"))
QUANTISED = tuple(f"uplink {name}" for name in UPLINKS if f"uplink {name}" not in SPARSE + ROTATED)
TWO_SIDED = "fedgkt", "fedgen"
# Compressors differ in one pure function of a message and its key, so what is costly to ask of a whole program is asked of one of them; and
# families are parts of the program of one.
ALIKE = [f"uplink {name}" for name in UPLINKS if name != "top_k"] + ["families that keep their models"]
# Methods of optimisation stand against their tables on every engine; one of each kind of composition is asked in every run.
ONE_OF_EACH_KIND = "scaffold", "fedbuff", "fedper"
BY_TABLE = [name for name in (*OPTIMISATION, *ASYNCHRONOUS, *PERSONAL) if name not in ONE_OF_EACH_KIND]
ALIKE += BY_TABLE
# What has a near relative that every run asks is asked in the deeper tests.
RELATED = (
    "multi_krum", "bulyan", "caf", "mda", "monna", "trimmed_mean", "meamed", "norm_bounding", "sign_majority", "rlr", "bucketing", "arc",
    "ddgauss", "dp_mean", "work momentum", "work adam", "work measured", "work scheduled", "own weights", "adam server", "plateau",
    "fedavg", "fedbuff", "fd", "families that keep their models", "fedgen", "fedgkt", "uplink with state",
    *(f"uplink {name}" for name in UPLINKS if name not in ("top_k", "qsgd", "drive")),
)  # fmt: skip
KINDS = [name for name in ALGORITHMS if name not in ALIKE]
SIX = "work sgd", "fedavgm", "random at every place", "uplink top_k", "distilled", "scaffold"  # what has most to do with each other
