"""Every tutorial and every notebook runs, top to bottom: in the deeper tests with rounds and sizes cut, in the slow ones whole."""

import ast
import json
import re
import shutil

import accounting
import jax
import pytest
from grouping import grouped
from pages import PAGES, ROOT, blocks, calls, run_blocks

# Page -> pairs of its text, each of which stands there once, so that a page that changes is noticed.
TUTORIALS = {
    "compression": [("rounds=10)", "rounds=1)"), ("seeds=3, rounds=150", "seeds=1, rounds=15")],
    "hours": [("rounds=60", "rounds=30"), ("=10, rounds=300", "=10, rounds=60"), ("(table), rounds=300", "(table), rounds=60")],
    "machines": [],
    "my_aggregator": [
        ('    "median": fl.aggregators.median(),\n    "trimmed_mean": fl.aggregators.trimmed_mean(num_byzantine=4),\n', ""),
        ('    "geometric_median": fl.aggregators.geometric_median(),\n    "nnm, median"', '    "nnm"'),
        (', "alie": fl.attacks.alie(z=1.5)', ""),
        ("seeds=3", "seeds=1"),
    ],
    "my_algorithm": [],
    "my_data": [],
    "my_model": [("rounds=60", "rounds=4"), ("evaluate_every=20", "evaluate_every=2")],
    "on_disk": [("range(10_000)", "range(200)"), ("population=10_000", "population=200"), ("uniform(1000)", "uniform(20)")],
    "paper_table": [
        ("uniform(10)", "uniform(5)"),
        ("length=200", "length=5"),
        ('{"10": 10, "all": None}', '{"10": 10}'),
        ("seeds=5", "seeds=1"),
    ],
    "personal": [("rounds=30", "rounds=10")],
    "privacy_budget": [
        ("(1.0, 2.0, 4.0, 8.0)", "(8.0,)"),
        ("300, 0.1, 60", "300, 0.1, 3"),
    ],
    "resume": [
        ("rounds=40", "rounds=4"),
        ("evaluate_every=10", "evaluate_every=2"),
        ('train("runs/killed", 20)', 'train("runs/killed", 2)'),
    ],
    "several_devices": [("rounds=10", "rounds=2")],
    "study": [("rounds=50", "rounds=20"), ("seeds=4", "seeds=1"), ("(8, 16, 4, 50)", "(8, 16, 1, 20)")],
}
NOTEBOOKS = {
    "new_aggregator": [("rounds=30", "rounds=3"), ("seeds=3", "seeds=1"), ("[0.0, 0.1, 10.0]", "[10.0]")],
    "personal": [("rounds=30", "rounds=2")],
    "quickstart": [],
    "study": [("rounds=50", "rounds=5"), ("seeds=3", "seeds=2")],
}
CUTS = {f"docs/tutorials/{name}.md": cuts for name, cuts in TUTORIALS.items()}
CUTS |= {f"docs/notebooks/{name}.ipynb": cuts for name, cuts in NOTEBOOKS.items()}
FOUND = [
    *(page for page in PAGES if "/tutorials/" in page and list(blocks(page))),
    *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.ipynb")),
]


@pytest.fixture(autouse=True)
def a_users_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XLA_FLAGS", "")  # a page that sets it leaves it so
    with jax.numpy_rank_promotion("allow"):
        yield


def test_each_has_its_line():
    assert set(CUTS) == set(FOUND)


@pytest.mark.parametrize("page", CUTS)
def test_what_blocks_name_exists_and_takes_what_it_is_given(page):
    assert calls(page) or page == "docs/tutorials/resume.md"  # whose calls are in a file that it writes


@pytest.mark.deep
@grouped("page", list(CUTS), group="docs")
def test_blocks_run(page):
    with accounting.coarse():
        run_blocks(page, CUTS[page])


@pytest.mark.slow
@pytest.mark.parametrize("page", CUTS)
def test_blocks_run_whole(page):
    run_blocks(page)


@pytest.mark.parametrize("page", [page for page in CUTS if page.endswith(".ipynb")])
def test_a_notebook_is_plain_and_small(page):
    """Format 4.5, of the fields that it asks for; no magics; outputs that are text, and links that lead somewhere."""
    notebook = json.loads((ROOT / page).read_text())
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"} and (notebook["nbformat"], notebook["nbformat_minor"]) == (
        4,
        5,
    )
    cells = notebook["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells) and all(re.fullmatch(r"[\w-]{1,64}", cell["id"]) for cell in cells)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    assert all(ast.parse(block).body for block in blocks(page))
    assert {kind for cell in code for output in cell["outputs"] for kind in output.get("data", {"text/plain": ""})} <= {"text/plain"}
    assert (ROOT / page).stat().st_size < 20_000
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    assert all((ROOT / page).parent.joinpath(target).exists() for text in texts for target in re.findall(r"\]\(([^)#]+)\)", text))


@pytest.mark.deep
def test_a_notebook_runs_in_jupyter(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="not installed: pip install nbformat nbclient ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="not installed: pip install nbformat nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="not installed: pip install nbformat nbclient ipykernel")
    page = shutil.copy(ROOT / "docs" / "notebooks" / "quickstart.ipynb", tmp_path)
    notebook = nbformat.read(page, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs if "data" in output]
    assert any("<iframe" in output.data.get("text/html", "") for output in shown)
