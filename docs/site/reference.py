"""The reference: a page a public module, from docstrings, and an index of all public names; all of it from `__all__`."""

from mkdocs.structure.files import File
from public import Name, first_line, modules, names


def on_files(files, config):
    """Add the pages."""
    for name, text in pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def pages() -> dict[str, str]:
    """Return the reference: page -> Markdown."""
    own = [name for name in names("fedjax_lite") if not name.is_module]
    rooms = {room: [name for name in names(module) if not name.is_module] for room, module in modules().items()}
    found = {"fl": page("fl", first_line("fedjax_lite"), own)}
    found |= {room: page(f"fl.{room}", first_line(modules()[room]), listed) for room, listed in rooms.items()}
    return {"index": index({"fl": own} | rooms)} | found


def page(title: str, line: str, listed: list[Name]) -> str:
    """Return the page of a module: a table of its names, then each with its docstring."""
    rows = "\n".join(f"| [`{name.name}`](#{name.module}.{name.name}) | {escaped(name.line)} |" for name in listed)
    blocks = "\n\n".join(f"::: {name.module}.{name.name}" for name in listed)
    return f"# {title}\n\n{line}\n\n| name | |\n|---|---|\n{rows}\n\n{blocks}\n"


def index(rooms: dict[str, list[Name]]) -> str:
    """Return the page of all public names."""
    parts = []
    for room, listed in rooms.items():
        rows = "\n".join(f"| [`{name.name}`]({room}.md#{name.module}.{name.name}) | {escaped(name.line)} |" for name in listed)
        parts.append(f"## [{'fl' if room == 'fl' else f'fl.{room}'}]({room}.md)\n\n| name | |\n|---|---|\n{rows}\n")
    first = "Every public name with its first line, as `import fedjax_lite as fl` has them. What each part is for is in [names](../names.md)."
    return f"# API index\n\n{first}\n\n" + "\n".join(parts)


def escaped(line: str) -> str:
    """Return a line that can stand in a table."""
    return line.replace("|", "\\|")
