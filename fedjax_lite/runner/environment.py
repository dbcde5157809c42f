"""Fingerprints of code and device, on which a result depends beside its configuration and data."""

import functools
import hashlib
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

__all__ = ["environment"]


@functools.cache
def environment() -> dict[str, Any]:
    """Return fingerprints of the code (a hash of every source file of the package, versions) and of the device."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for source in sorted(package.rglob("*.py")):
        digest.update(source.relative_to(package).as_posix().encode() + source.read_bytes())
    versions = {name: version(name) for name in ("fedjax-lite", "jax", "jaxlib", "optax", "flax", "numpy")}
    device = jax.devices()[0]
    return {
        "code": {"sha256": digest.hexdigest()[:16], "python": platform.python_version()} | versions,
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count(), "cores": os.cpu_count()},
    }
