"""Every Python block of the README and the docs runs, top to bottom; every link leads somewhere; what a block names exists.

The dearer pages run in the deeper tests, the dearest and the whole README in the slow ones; all but that with rounds and seeds cut."""

import re
from pathlib import Path

import accounting
import jax
import numpy as np
import pytest
from grouping import tiered
from loggers import stand_in
from pages import PAGES, ROOT, blocks, calls, run_blocks

# Page -> pairs of its text, each of which stands there once, so that a page that changes is noticed.
CUTS = {
    "docs/arena.md": [
        ('name="median_of_means")', 'name="median_of_means", rounds=2, seeds=1)'),
        ('name="qsgd(8)")', 'name="qsgd(8)", rounds=2, seeds=1)'),
    ],
    "docs/asynchronous.md": [],
    "docs/attacks.md": [],
    "docs/client_work.md": [],
    "docs/coming_from.md": [],
    "docs/configurations.md": [],
    "docs/comparing.md": [],
    "docs/compression.md": [("rounds=30", "rounds=2"), ("plain = history(None)\n", "")],
    "docs/data_sources.md": [],
    "docs/differentiable.md": [],
    "docs/exporting.md": [],
    "docs/distillation.md": [("steps=300", "steps=20"), ("epochs=5", "epochs=1"), ("rounds=3", "rounds=2")],
    "docs/finished_runs.md": [],
    "docs/getting_started.md": [("rounds=20", "rounds=2"), ("evaluate_every=10", "evaluate_every=2")],
    "docs/ideas.md": [],
    "docs/models.md": [],
    "docs/participation.md": [],
    "docs/partitions.md": [],
    "docs/personal.md": [("rounds=30", "rounds=10"), ("rounds=15", "rounds=2"), ("rounds=25", "rounds=5")],
    "docs/plots.md": [],
    "docs/privacy.md": [],
    "docs/running.md": [("rounds=40", "rounds=4"), ("evaluate_every=10", "evaluate_every=2"), ("rounds=10,", "rounds=2,")],
    "docs/scale.md": [],
    "docs/server.md": [],
    "docs/studies.md": [],
    "docs/tables_and_text.md": [],
    "docs/aggregators.md": [],
    "docs/algorithms.md": [],
    "docs/data.md": [],
    "docs/formats.md": [],
    "docs/schedules.md": [],
    "docs/speed.md": [],
}
CHEAP = (
    "docs/configurations.md",
    "docs/data_sources.md",
    "docs/data.md",
    "docs/formats.md",
    "docs/partitions.md",
    "docs/schedules.md",
    "docs/tables_and_text.md",
)
DEAR = "docs/aggregators.md", "docs/distillation.md", "docs/studies.md"
README = [
    ("jax.random.split(jax.random.key(1), 5), jnp.array([0.03, 0.1, 0.3])", "jax.random.split(jax.random.key(1), 2), jnp.array([0.1])"),
    ("rounds=100", "rounds=3"),
]


@pytest.fixture(autouse=True)
def a_users_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stand_in(monkeypatch)
    with jax.numpy_rank_promotion("allow"), accounting.coarse():
        yield


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        assert target.startswith("http") or (ROOT / page).parent.joinpath(target).exists(), target


def test_what_blocks_name_exists_and_takes_what_it_is_given():
    found = {page: calls(page) for page in PAGES if list(blocks(page)) and "/tutorials/" not in page}
    assert len(found) > 10 and min(found.values()) > 5, found


def test_every_page_has_its_line():
    assert set(CUTS) == {page for page in PAGES if list(blocks(page)) and page != "README.md" and "/tutorials/" not in page}


@tiered("page", CUTS, CHEAP, [page for page in CUTS if page not in DEAR], group="docs")
def test_blocks_run(page):
    run_blocks(page, CUTS[page])


def test_the_first_block_of_the_readme_runs():
    curves = np.asarray(run_blocks("README.md", README, first=1)["curves"])
    assert curves.shape == (2, 1, 3) and (curves[..., -1] < curves[..., 0]).all()


@pytest.mark.slow
def test_the_readme_does_what_it_says():
    names = run_blocks("README.md")
    curves = np.asarray(names["curves"])
    assert curves.shape == (5, 3, 100) and np.isfinite(curves).all()
    assert (curves[..., -1] < 0.3 * curves[..., 0]).all()
    assert names["report"].broken and names["report"].breakdown == 2
    assert [rule for _, rule in names["ranking"]][-1] == "mean"

    # The round by hand is the round that federate compiles.
    fl, data = names["fl"], names["data"]
    algorithm = fl.federate(names["work"], names["aggregator"], names["server"], batches=names["batches"], population=data.population)
    state = algorithm.init(names["params"], jax.random.key(0))
    after, _ = jax.jit(algorithm.round)(state, data.train, names["cohort"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), algorithm.params(after), names["by_hand"].params)
    assert Path("runs/median_of_means/table.csv").exists()
