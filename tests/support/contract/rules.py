"""Every aggregator, in the group whose tests ask it."""

import jax
import jax.numpy as jnp

from contract.population import POPULATION
from fedjax_lite import aggregators


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
