"""Pages of the site whose text lies outside docs/: the README is its front, a file that a page links to is shown."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
TEXTS = {"README.md": "index.md"} | {path: path for path in ("benchmarks/README.md", "CHANGELOG.md", "CONTRIBUTING.md")}
LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(?=\))")
LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml"}


def on_files(files, config):
    """Add the texts, and a page for each file of the repository that they or the pages of docs/ link to."""
    from mkdocs.structure.files import File  # here, so that the rest needs no mkdocs

    for path, place in TEXTS.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    for path in sorted(linked()):
        if path.suffix == ".svg":
            files.append(File.generated(config, str(path), abs_src_path=str(ROOT / path)))
        elif (ROOT / path).is_file():
            files.append(File.generated(config, page_of(path), content=shown(path)))
    return files


def linked() -> set[Path]:
    """Return the paths outside docs/, but for the texts, that pages link to."""
    sources = [*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb"), *(ROOT / path for path in TEXTS)]
    found = {target(source, link[2]) for source in sources for link in LINK.finditer(source.read_text())}
    return {path for path in found if path is not None and page_of(path) not in TEXTS.values() and not in_docs(path)}


def target(source: Path, link: str) -> Path | None:
    """Return the path in the repository that a link of a text leads to; None where there is none."""
    place = (source.parent / link).resolve()
    return place.relative_to(ROOT) if "://" not in link and place.exists() and place.is_relative_to(ROOT) and place != ROOT else None


def in_docs(path: Path) -> bool:
    """Return whether docs/ holds a page, picture, notebook or folder of them that a path leads to."""
    return path.parts[0] == "docs" and path.suffix in (".md", ".svg", ".ipynb", "")


def page_of(path: Path) -> str:
    """Return the page of the site that stands for a path of the repository."""
    if str(path) in TEXTS:
        return TEXTS[str(path)]
    if path.suffix == ".ipynb":
        return str(path.relative_to("docs").with_suffix(".md"))
    if in_docs(path):
        return str(path.relative_to("docs") / ("index.md" if (ROOT / path).is_dir() else ""))
    if path.suffix == ".svg":
        return str(path)
    if path.parts[0] == "fedjax_lite" and (ROOT / path).is_dir():
        return f"reference/{path.name}.md"
    return f"files/{path}.md"


def shown(path: Path) -> str:
    """Return a page that shows a file."""
    text = (ROOT / path).read_text()
    if path.suffix == ".md":
        return text
    return f"# {path.name}\n\n`{path}`\n\n````{LANGUAGES.get(path.suffix, 'text')}\n{text}\n````\n"
