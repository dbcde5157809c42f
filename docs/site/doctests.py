"""Examples of docstrings, which begin with >>>, as blocks of code."""

import re

import griffe

EXAMPLE = re.compile(r"^>>> .*\n?(?:.+\n?)*", re.MULTILINE)


class Doctests(griffe.Extension):
    """Fences examples, which Markdown would take for quotations."""

    def on_instance(self, *, obj, **others):
        """Rewrite the docstring of an object."""
        if obj.is_alias or obj.docstring is None:
            return
        obj.docstring.value = EXAMPLE.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", obj.docstring.value)
