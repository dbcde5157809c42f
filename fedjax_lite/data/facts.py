"""Read `store.json`, the facts about a store's files, and refuse facts that `save` does not write."""

import json
from pathlib import Path
from typing import Any

FORMAT, VERSION = "fedjax_lite store", 1


def read_facts(file: Path) -> dict[str, Any]:
    """Read the facts of a store: "leaves", each with its path, file, dtype and shape; "fingerprint"; "words" where labels were words, and
    the clients' "names" where they have some.

    Raises:
        ValueError: if `file` is damaged or of another version, or names files outside its folder.
    """
    try:
        facts = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{file} is damaged ({why}): write the store again") from error
    if isinstance(facts, dict) and (facts.get("format") != FORMAT or facts.get("version") != VERSION):
        raise ValueError(
            f"{file.parent} has the format {facts.get('format')!r} {facts.get('version')!r}, this is {FORMAT!r} {VERSION}: write it again"
        )
    if why := _wrong(facts):
        raise ValueError(f"{file} is damaged ({why}): write the store again")
    for leaf in facts["leaves"]:
        if leaf["file"] in ("", ".", "..") or Path(leaf["file"]).name != leaf["file"]:
            raise ValueError(f"{file} names {leaf['file']!r}, which is no file of its folder: write the store again")
    return facts


def _wrong(facts: Any) -> str:
    """Return the first difference from facts that `save` writes, or ""."""
    if not isinstance(facts, dict):
        return f"it holds a {type(facts).__name__}"
    leaves, fingerprint = facts.get("leaves"), facts.get("fingerprint")
    if not isinstance(leaves, list) or not all(map(_is_leaf, leaves)):
        return "leaves must be a list of tables with path, file, dtype and shape"
    paths = [tuple(leaf["path"]) for leaf in leaves]
    examples = [path for path in paths if path[0] == "examples"]
    nested = any(a != b and a == b[: len(a)] for a in examples for b in examples)
    if len(set(paths)) < len(paths) or sorted(set(paths) - set(examples)) != [("size",), ("start",)] or not examples or nested:
        return "leaves must be size, start and those of the examples, each once"
    counts = {"clients": int, "examples": int, "sha256": str}
    if not isinstance(fingerprint, dict) or any(type(fingerprint.get(key)) is not kind for key, kind in counts.items()):
        return "fingerprint must have clients, examples and sha256"
    for key in ("words", "names"):
        if not isinstance(texts := facts.get(key, []), list) or not all(isinstance(text, str) for text in texts):
            return f"{key} must be a list of text"
    return ""


def _is_leaf(leaf: Any) -> bool:
    """Return whether the entry of a leaf has a path, a file, a dtype and a shape."""
    if not isinstance(leaf, dict) or not all(isinstance(leaf.get(key), list) for key in ("path", "shape")):
        return False
    numbers = all(type(n) is int and n >= 0 for n in leaf["shape"])
    return bool(leaf["path"]) and numbers and all(isinstance(x, str) for x in [*leaf["path"], leaf.get("file"), leaf.get("dtype")])
