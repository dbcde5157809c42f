"""Draw each partition of docs/partitions.md: labels by client of the bundled digits, and sizes, in docs/pictures/partitions.svg."""

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

COLUMNS, WIDTH, HEIGHT = 3, 420, 350  # of a sheet with a place for each


def sheet(pictures: dict[str, str]) -> str:
    """Put pictures beside and below each other, each under its name."""
    places = []
    for k, (name, picture) in enumerate(pictures.items()):
        x, y = WIDTH * (k % COLUMNS), HEIGHT * (k // COLUMNS)
        inside = picture.replace("<svg ", f'<svg x="{x}" y="{y + 24}" width="{WIDTH - 20}" height="{HEIGHT - 40}" ', 1)
        places.append(f'<text x="{x}" y="{y + 14}" font-weight="bold">{name}</text>{inside}')
    height = HEIGHT * -(-len(pictures) // COLUMNS)
    view = f'viewBox="0 0 {WIDTH * COLUMNS} {height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {view} font-family="system-ui, sans-serif" font-size="13">{"".join(places)}</svg>\n'


if __name__ == "__main__":
    drawn = {name: fl.data.picture(fl.data.digits(partition, test=0).train) for name, partition in PARTITIONS.items()}
    Path(__file__).with_suffix(".svg").write_text(sheet(drawn))
