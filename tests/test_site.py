"""The site of docs/: every page is in its navigation, every public module in its reference, every band is of something that is measured.

That it builds without a warning is asked by `make docs`."""

import importlib.util
import inspect
import re
import sys
from types import SimpleNamespace

import pytest
import yaml
from pages import PAGES, ROOT

import fedjax_lite as fl
from fedjax_lite.comparison.bands import bands_of
from fedjax_lite.configuration.config import load
from fedjax_lite.configuration.grid import grid_of

SITE = ROOT / "docs" / "site"
CONFIGS = sorted((ROOT / "configs").glob("*.toml"))


@pytest.fixture
def site(monkeypatch):
    """The modules beside the site's configuration that need no mkdocs."""
    monkeypatch.syspath_prepend(str(SITE))
    before = set(sys.modules)
    yield __import__
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_every_page_is_in_the_navigation(site):
    settings, navigation = yaml.safe_load((SITE / "mkdocs.yml").read_text()), site("navigation")
    pages = [page.removeprefix("docs/") for page in PAGES if page != "README.md"]
    named = navigation.leaves(settings["nav"])
    nav = navigation.expanded(settings["nav"], [page for page in pages if page not in named])
    found = navigation.leaves(nav)
    assert set(pages) <= set(found) and len(found) == len(set(found))
    assert set(found) - set(pages) == {"index.md", "CHANGELOG.md", "reference/index.md", "reference/fl.md"}  # the README, and names


def test_patterns_of_the_navigation_stand_for_what_is_not_named(site):
    expanded = site("navigation").expanded
    nav = ["a.md", {"More": ["b/two.md", "b/th*", "b/*.md"]}, {"None": ["c/*.md"]}]
    assert expanded(nav, ["b/four.md", "b/one.md", "b/three.md"]) == ["a.md", {"More": ["b/two.md", "b/three.md", "b/four.md", "b/one.md"]}]


def test_every_public_name_is_in_the_reference(site):
    """Read from the sources, they are those that the imported package has."""
    public = site("public")
    rooms = {name: value.__name__ for name in fl.__all__ if inspect.ismodule(value := getattr(fl, name))}
    assert public.modules() == rooms
    for name, module in {"fl": "fedjax_lite", **rooms}.items():
        here = fl if name == "fl" else getattr(fl, name)
        for each in public.names(module):
            value = getattr(here, each.name)
            assert each.is_module == inspect.ismodule(value)
            if inspect.isfunction(value) or inspect.isclass(value):
                assert each.line == (inspect.getdoc(value) or "").split("\n")[0], f"{name}.{each.name}"
        assert [each.name for each in public.names(module)] == here.__all__


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_bands_are_of_cells_that_a_study_has(path, site):
    config = load(path)
    expected = config.values.get("expected", {})
    bands = bands_of(expected) if expected else []
    axes = grid_of(config).axes if "grid" in config.values else ()
    cells = {name: {str(row[i]) for row in axis.rows} for axis in axes for i, name in enumerate(axis.names)}
    for band in bands:
        assert 0 <= band.low < band.high and all(str(value) in cells[name] for name, value in band.of)
        assert band.round is None or band.round % config.values["run"]["evaluate_every"] == 0
    section = site("results").section(path)
    assert section.count("\n| `") == len(bands) and f"fedjax-lite run configs/{path.name}" in section.replace("study", "run")


@pytest.mark.parametrize("name", ["lanes", "clock"])
def test_pictures_are_those_that_are_drawn(name):
    pictures = ROOT / "docs" / "pictures"
    spec = importlib.util.spec_from_file_location("ideas", pictures / "ideas.py")
    ideas = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ideas)
    assert (pictures / f"{name}.svg").read_text() == getattr(ideas, f"{name}_picture")()


def test_the_reference_shows_each_definition_once(site):
    pages = site("reference").pages()
    shown = [line.removeprefix("::: ") for page in pages.values() for line in page.splitlines() if line.startswith(":::")]
    linked = set(re.findall(r"\(\w+\.md#([\w.]+)\)", pages["index"]))
    assert len(shown) == len(set(shown)) > 300 and linked == set(shown)
    assert "](data.md#fedjax_lite.data.split.split)" in pages["fl"] and "::: fedjax_lite.data.split.split" in pages["data"]


@pytest.mark.parametrize(
    "page, link, leads_to",
    [
        ("index.md", "docs/data.md#seeds", "data.md#seeds"),
        ("index.md", "CONTRIBUTING.md", "CONTRIBUTING.md"),
        ("data.md", "../README.md", "index.md"),
        ("data.md", "formats.md#text", "formats.md#text"),
        ("scale.md", "../benchmarks/README.md#memory", "benchmarks/README.md#memory"),
        ("names.md", "../fedjax_lite/algorithms", "reference/algorithms.md"),
        ("names.md", "../configs/har.toml", "files/configs/har.toml.md"),
        ("partitions.md", "pictures/partitions.py", "files/docs/pictures/partitions.py.md"),
        ("partitions.md", "pictures/partitions.svg", "pictures/partitions.svg"),
        ("benchmarks/README.md", "../docs/models.md", "../models.md"),
        ("benchmarks/README.md", "plots/lanes.svg", "plots/lanes.svg"),
        ("data.md", "https://example.org/a.md", "https://example.org/a.md"),
        ("data.md", "missing.md", "missing.md"),  # of which mkdocs warns
    ],
)
def test_a_link_leads_to_the_page_of_its_file(site, page, link, leads_to):
    place = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    assert site("links").on_page_markdown(f"a [word]({link}).", page=place) == f"a [word]({leads_to})."


def test_a_drawing_stands_in_its_page(site):
    place = SimpleNamespace(file=SimpleNamespace(src_uri="ideas.md"))
    assert (
        site("links")
        .on_page_markdown("![lanes](pictures/lanes.svg)", page=place)
        .startswith('<svg xmlns="http://www.w3.org/2000/svg" class="picture"')
    )


def test_a_notebook_is_a_page(site):
    outputs = [
        {"output_type": "stream", "text": ["1\n"]},
        {"output_type": "display_data", "data": {"image/png": "AAAA", "text/plain": ["a figure"]}},
        {"output_type": "execute_result", "data": {"text/plain": ["2"]}},
    ]
    cells = [{"cell_type": "markdown", "source": ["# A\n", "text"]}, {"cell_type": "code", "source": ["f()"], "outputs": outputs}]
    page = site("notebooks").page_of({"cells": [*cells, {"cell_type": "code", "source": [], "outputs": []}]}, "a.ipynb")
    image = "![output](data:image/png;base64,AAAA)"
    code, first, last = "```python\nf()\n```", "```text\n1\n```", "```text\n2\n```"
    assert (
        page.replace('"', "'")
        == f"# A\ntext\n\n{code}\n\n{first}\n\n{image}\n\n{last}\n\nThis page is <a href='a.ipynb' download>a notebook</a>.\n"
    )


def test_tutorials_are_listed_in_the_order_of_the_navigation(site, tmp_path):
    (tmp_path / "a.md").write_text("# Of A\n\nWith B et al. of 2017\nand C. More.\n\nText.")
    (tmp_path / "b.md").write_text("# Of B\n\nAlone.")
    page = site("tutorials").listing(sorted(tmp_path.iterdir()), ["index.md", "tutorials/b.m*", "tutorials/*.md"])
    assert page == "# Tutorials\n\n- [Of B](b.md). Alone.\n- [Of A](a.md). With B et al. of 2017 and C.\n"
