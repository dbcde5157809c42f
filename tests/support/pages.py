"""The README, the docs and their notebooks: their Python blocks, what these call, and how they are run."""

import ast
import importlib
import inspect
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", "benchmarks/README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]


def blocks(page):
    """The Python blocks of a page, each after as many empty lines as there are above it; of a notebook its cells of code."""
    text = (ROOT / page).read_text()
    if page.endswith(".ipynb"):
        yield from ("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")
        return
    for match in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
        yield "\n" * (text[: match.start()].count("\n") + 1) + match[1]


def run_blocks(page, cuts=(), first=None):
    """Run the blocks of a page, or the first of them, top to bottom with pairs of their text replaced; returns their names."""
    found, namespace = list(blocks(page))[:first], {}
    for old, new in cuts:
        assert sum(block.count(old) for block in found) == 1, f"{page}: {old!r} is there {sum(block.count(old) for block in found)} times"
        found = [block.replace(old, new) for block in found]
    for block in found:
        exec(compile(block, str(ROOT / page), "exec"), namespace)
    return namespace


def calls(page):
    """What the blocks of a page import, read and call: every name exists, every call's arguments are known. Returns how many calls."""
    known, number = {}, 0
    for block in blocks(page):
        tree = ast.parse(block)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                exec(compile(ast.Module([node], []), page, "exec"), known)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                resolved(node, known)
            if isinstance(node, ast.Call) and (function := resolved(node.func, known)) is not None:
                number += 1
                check_call(node, function, page)
    return number


def resolved(node, known):
    """What a name of the form a.b.c stands for, if it begins with an imported module; else None."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    parent = resolved(node.value, known)
    if not inspect.ismodule(parent):
        return None
    if not hasattr(parent, node.attr):  # a submodule that nothing has imported yet
        importlib.import_module(f"{parent.__name__}.{node.attr}")
    return getattr(parent, node.attr)


def check_call(node, function, page):
    """The arguments of a call fit the function's signature, where it has one."""
    names = [keyword.arg for keyword in node.keywords]
    if None in names or any(isinstance(argument, ast.Starred) for argument in node.args):
        return
    try:
        signature = inspect.signature(function)
    except ValueError:  # of functions in C
        return
    try:
        signature.bind(*node.args, **dict.fromkeys(names))
    except TypeError as error:
        raise AssertionError(f"{page}:{node.lineno}: {ast.unparse(node.func)}: {error}") from None
