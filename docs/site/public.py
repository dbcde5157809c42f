"""Public names of the package, read from its sources without importing it: where each is defined, and its first line."""

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Name(NamedTuple):
    """A public name of a module."""

    name: str
    path: str  # where it is defined
    line: str  # the first line of its docstring; "" where it has none
    is_module: bool


def modules() -> dict[str, str]:
    """Return the public modules, in the order of the package's names: name of `fl` -> module."""
    return {name: target for name in exported("fedjax_lite") if is_module(target := resolved("fedjax_lite", name))}


def names(module: str) -> list[Name]:
    """Return the public names of a module."""
    found = []
    for name in exported(module):
        target = resolved(module, name)
        found.append(Name(name, target, first_line(target), is_module(target)))
    return found


def exported(module: str) -> list[str]:
    """Return the names in `__all__` of a module."""
    for node in tree_of(module).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    raise ValueError(f"{module} has no __all__")


def resolved(module: str, name: str) -> str:
    """Return the path of the definition, or of the module, that a name of a module stands for."""
    for node in tree_of(module).body:
        if isinstance(node, ast.ImportFrom) and node.module.startswith("fedjax_lite"):
            for each in node.names:
                if (each.asname or each.name) == name:
                    return f"{module}.{name}" if node.module == module else resolved(node.module, each.name)
    return f"{module}.{name}"


def first_line(path: str) -> str:
    """Return the first line of the docstring of a definition or a module; of another name of a definition, that one's."""
    if is_module(path):
        return (ast.get_docstring(tree_of(path)) or "").split("\n")[0]
    module, _, name = path.rpartition(".")
    for node in tree_of(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return (ast.get_docstring(node) or "").split("\n")[0]
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and getattr(node.targets[0], "id", "") == name:
            return first_line(f"{module}.{node.value.id}")
    return ""


def is_module(path: str) -> bool:
    """Return whether a path leads to a module, and to no definition of its name in the module before."""
    return file_of(path) is not None and path.rpartition(".")[2] not in defined(path.rpartition(".")[0])


def defined(module: str) -> set[str]:
    """Return the names that a module defines itself."""
    if file_of(module) is None:
        return set()
    return {getattr(node, "name", "") for node in tree_of(module).body}


def file_of(module: str) -> Path | None:
    """Return the file of a module; None for what is no module."""
    place = ROOT.joinpath(*module.split("."))
    return next((path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file()), None)


@cache
def tree_of(module: str) -> ast.Module:
    """Parse a module."""
    path = file_of(module)
    if path is None:
        raise ValueError(f"there is no module {module}")
    return ast.parse(path.read_text())
