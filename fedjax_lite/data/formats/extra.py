"""Import what only some formats need."""

import importlib
from types import ModuleType


def extra(module: str, package: str, name: str) -> ModuleType:
    """Import an optional module.

    Raises:
        ImportError: where its package is missing; says how to install it, and the extra called `name`.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ImportError(f"this format needs {package}: pip install {package.lower()}, or pip install 'fedjax_lite[{name}]'") from None
