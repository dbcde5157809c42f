"""Engines: how the clients of a cohort are laid out on a device. All give the same result."""

from fedjax_lite.engine.contract import Build, Engine, Local, Upload
from fedjax_lite.engine.lanes import packed
from fedjax_lite.engine.plain import padded, sequential

__all__ = ["Build", "Engine", "Local", "Upload", "packed", "padded", "sequential"]
