"""Every Python block of the README and the docs runs, top to bottom, as it stands; every link leads somewhere."""

import re

import jax
import numpy as np
import pytest
from conftest import ROOT

PAGES = ["README.md", "CONTRIBUTING.md", "benchmarks/README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))]


def run_blocks(page):
    text, namespace = (ROOT / page).read_text(), {}
    for match in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
        line = text[: match.start()].count("\n") + 1
        exec(compile("\n" * line + match[1], str(ROOT / page), "exec"), namespace)
    return namespace


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        assert target.startswith("http") or (ROOT / page).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("page", sorted({page for page in PAGES if page != "README.md" and "```python" in (ROOT / page).read_text()}))
def test_blocks_run(page):
    with jax.numpy_rank_promotion("allow"):  # a user's setting
        run_blocks(page)


def test_the_readme_does_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with jax.numpy_rank_promotion("allow"):
        said = run_blocks("README.md")
    curves = np.asarray(said["curves"])
    assert curves.shape == (5, 3, 100) and np.isfinite(curves).all()
    assert (curves[..., -1] < 0.3 * curves[..., 0]).all()
    assert said["report"].broken and said["report"].breakdown == 2
    assert (tmp_path / "runs/median_of_means/table.csv").exists()
    assert [rule for _, rule in said["ranking"]][-1] == "mean"

    # The round by hand is the round that federate compiles.
    fl, data = said["fl"], said["data"]
    algorithm = fl.federate(said["work"], said["aggregator"], said["server"], batches=said["batches"], population=data.population)
    state = algorithm.init(said["params"], jax.random.key(0))
    after, _ = jax.jit(algorithm.round)(state, data.train, said["cohort"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), algorithm.params(after), said["by_hand"].params)
