"""Docstrings as Markdown: examples, which begin with >>>, as blocks of code; of a tuple's fields their comments."""

import re

import griffe

EXAMPLE = re.compile(r"^>>> .*\n?(?:.+\n?)*", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Changes docstrings when they have been read."""

    def on_instance(self, *, obj, **others):
        """Fence examples, which Markdown would take for quotations."""
        if not obj.is_alias and obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", obj.docstring.value)

    def on_attribute_instance(self, *, attr, **others):
        """Take a field's comment for its docstring."""
        if attr.docstring is None and attr.parent.is_class and "  # " in attr.source:
            comment = attr.source.partition("  # ")[2].strip()
            if not comment.startswith("type:"):
                attr.docstring = griffe.Docstring(comment, parent=attr)
