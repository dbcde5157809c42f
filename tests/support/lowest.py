"""The lowest versions that pyproject.toml allows, as pip's constraints: `python tests/support/lowest.py > constraints.txt`."""

import re
import tomllib
from pathlib import Path


def constraints(project):
    """One line a requirement of the package and of its tests."""
    for requirement in project["dependencies"] + project["optional-dependencies"]["test"]:
        name, version = re.fullmatch(r"([\w-]+)>=([\d.]+).*", requirement).groups()
        yield f"{name}=={version}"


if __name__ == "__main__":
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    print(*constraints(tomllib.loads(pyproject.read_text())["project"]), sep="\n")
