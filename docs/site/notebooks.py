"""Notebooks of docs/notebooks/ as pages: texts, code, and what their cells have printed and drawn."""

import json
from pathlib import Path

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def on_files(files, config):
    """Add a page a notebook, and one of all of them."""
    from mkdocs.structure.files import File  # here, so that the rest needs no mkdocs

    found = {path: json.loads(path.read_text()) for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
    for path, notebook in found.items():
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page_of(notebook, path.name)))
    if found:
        lines = [f"- [{title_of(notebook)}]({path.stem}.md)" for path, notebook in found.items()]
        files.append(File.generated(config, "notebooks/index.md", content="\n".join(["# Notebooks", "", *lines]) + "\n"))
    return files


def title_of(notebook: dict) -> str:
    """Return a notebook's title, the first line of its first cell."""
    return "".join(notebook["cells"][0]["source"]).partition("\n")[0].removeprefix("# ")


def page_of(notebook: dict, name: str) -> str:
    """Return a notebook as Markdown."""
    cells = "\n\n".join(text for cell in notebook["cells"] if (text := shown(cell)))
    return f'{cells}\n\nThis page is <a href="{name}" download>a notebook</a>.\n'


def shown(cell: dict) -> str:
    """Return a cell as Markdown."""
    source = "".join(cell["source"])
    if cell["cell_type"] != "code":
        return source
    outputs = "\n\n".join(text for output in cell["outputs"] if (text := printed(output)))
    return f"```python\n{source}\n```\n\n{outputs}" if source else ""


def printed(output: dict) -> str:
    """Return what a cell has printed or drawn."""
    data = output.get("data", {})
    if "image/svg+xml" in data:
        return "".join(data["image/svg+xml"])
    if "image/png" in data:
        return f"![output](data:image/png;base64,{''.join(data['image/png']).strip()})"
    text = "".join(output.get("text", data.get("text/plain", "")))
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""
