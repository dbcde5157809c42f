"""The reference: a page a public module, from docstrings, and an index of all public names; all of it from `__all__`."""

from public import Name, first_line, modules, names


def on_files(files, config):
    """Add the pages."""
    from mkdocs.structure.files import File  # here, so that the rest needs no mkdocs

    for name, text in pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def pages() -> dict[str, str]:
    """Return the reference: page -> Markdown."""
    modules_of = modules() | {"fl": "fedjax_lite"}  # rooms first: a name of both is shown in its room
    listed = {room: [name for name in names(module) if not name.is_module] for room, module in modules_of.items()}
    homes: dict[str, str] = {}
    for room, found in listed.items():
        for name in found:
            homes.setdefault(name.path, room)
    return {"index": index(listed, homes)} | {room: page(room, first_line(modules_of[room]), listed[room], homes) for room in listed}


def page(room: str, line: str, listed: list[Name], homes: dict[str, str]) -> str:
    """Return the page of a module: a table of its names, then each with its docstring."""
    blocks = "\n\n".join(f"::: {name.path}" for name in listed if homes[name.path] == room)
    return f"# {title(room)}\n\n{line}\n\n{table(listed, homes)}\n\n{blocks}\n"


def index(rooms: dict[str, list[Name]], homes: dict[str, str]) -> str:
    """Return the page of all public names."""
    first = "Every public name with its first line, as `import fedjax_lite as fl` has it. What there is by part: [names](../names.md)."
    parts = [f"## [{title(room)}]({room}.md)\n\n{table(rooms[room], homes)}" for room in sorted(rooms, key=title)]
    return "\n\n".join(["# API index", first, *parts]) + "\n"


def table(listed: list[Name], homes: dict[str, str]) -> str:
    """Return names, each linked to its docstring, and their first lines."""
    rows = [f"| [`{name.name}`]({homes[name.path]}.md#{name.path}) | {escaped(name.line)} |" for name in listed]
    return "\n".join(["| name | |", "|---|---|", *rows])


def title(room: str) -> str:
    """Return the name by which a user calls a module."""
    return room if room == "fl" else f"fl.{room}"


def escaped(line: str) -> str:
    """Return a line that can stand in a table."""
    return line.replace("|", "\\|")
