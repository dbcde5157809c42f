"""Engines: ways to lay a cohort out on devices. All give the same result."""

from fedjax_lite.engine.contract import Build, Engine, Local, Upload
from fedjax_lite.engine.lanes import packed
from fedjax_lite.engine.simple import padded, sequential

__all__ = ["Build", "Engine", "Local", "Upload", "packed", "padded", "sequential"]
