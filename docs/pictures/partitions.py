"""Draw each partition of docs/partitions.md: labels by client of the bundled digits, in docs/pictures/partition_NAME.svg."""

from pathlib import Path

import numpy as np

import fedjax_lite as fl

p = fl.partition
MIX = np.random.default_rng(0).dirichlet(np.ones(10), 20).tolist()
PARTITIONS = {
    "iid": p.iid(20),
    "given_sizes": p.given_sizes([20] * 10 + [100] * 10),
    "growing_sizes": p.growing_sizes(20),
    "lognormal_sizes": p.lognormal_sizes(20, sigma=1.0),
    "quantity_skew": p.quantity_skew(20, beta=0.5),
    "dirichlet": p.dirichlet(20, alpha=0.3),
    "dirichlet_feddf": p.dirichlet_feddf(20, alpha=0.3),
    "dirichlet_hsu": p.dirichlet_hsu(20, alpha=0.3),
    "inner_dirichlet": p.inner_dirichlet(p.lognormal_sizes(20, sigma=0.5), alpha=0.3),
    "shards": p.shards(20),
    "similarity": p.similarity(20, share=0.3),
    "labels_per_client": p.labels_per_client(20, labels=3),
    "power_law": p.power_law(20),
    "class_shares": p.class_shares(MIX),
    "label_mix": p.label_mix(p.given_sizes([30] * 20), MIX),
    "natural": p.natural("y"),
    "continuous": p.continuous(20, "y", strictness=0.9),
    "by": p.by("y", p.shards(20)),
}

if __name__ == "__main__":
    for name, partition in PARTITIONS.items():
        picture = fl.data.picture(fl.data.digits(partition, test=0).train)
        Path(__file__).with_name(f"partition_{name}.svg").write_text(picture)
