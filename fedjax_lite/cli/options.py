"""Options that commands share: the configuration, the devices, JSON instead of text."""

import argparse
import os
import sys
from typing import Any, NamedTuple

import jax
import shtab

from fedjax_lite.configuration.config import load
from fedjax_lite.configuration.table import Config
from fedjax_lite.engine.placement import mesh_of

__all__ = ["Parents", "completed", "load_one", "mesh", "parents_of"]

MOST_CORES = 8  # each holds a copy of the data


class Parents(NamedTuple):
    """Parsers with the options that commands share."""

    json: argparse.ArgumentParser  # --json, of every command
    config: argparse.ArgumentParser  # CONFIG --set SECTION.KEY=VALUE, and --json
    devices: argparse.ArgumentParser  # --devices N, and those of config


def parents_of() -> Parents:
    """Make the parsers of options that commands share."""
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="print one JSON object, and nothing else, to standard output")
    config = argparse.ArgumentParser(add_help=False, parents=[as_json])
    completed(config.add_argument("config", help="a TOML file"))
    config.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a value, as often as you like")
    devices = argparse.ArgumentParser(add_help=False, parents=[config])
    devices.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="how many devices share the clients, or a study's runs (default: up to 8 cores of a CPU, or 1 accelerator)",
    )
    return Parents(as_json, config, devices)


def completed(action: argparse.Action, how: Any = shtab.FILE) -> None:
    """Let a shell complete an argument's value: by default with files, by `shtab.DIRECTORY` with folders."""
    setattr(action, "complete", how)


def load_one(options: argparse.Namespace) -> Config:
    """Load a configuration for one run, and say that the grid of a study's is left out."""
    config = load(options.config, options.set)
    note_grid(config)
    return config


def note_grid(config: Config) -> None:
    """Say that the grid of a study's configuration is left out."""
    if config.values.get("grid"):
        print(f"{config.origin(('grid',)).place}: one run, of the values outside [grid]; fedjax-lite study runs all of it", file=sys.stderr)


def mesh(devices: int | None) -> jax.sharding.Mesh:
    """Make the mesh of devices that share the clients; each core of a CPU is a device."""
    if devices is not None and devices < 1:
        raise ValueError(f"--devices must be at least 1, got {devices}")
    if jax.distributed.is_initialized():
        if devices is not None and devices != jax.device_count():
            raise ValueError(f"--devices {devices}: several hosts use all of their devices, here {jax.device_count()}; leave it out")
        return mesh_of(jax.devices())
    cores = os.cpu_count() or 1
    few = min(cores, MOST_CORES)
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):  # whoever asks for more than there are, gets them
        try:
            jax.config.update("jax_num_cpu_devices", min(devices or few, cores))
        except RuntimeError:
            pass  # jax runs already, as in a notebook, with the devices it has
    found = jax.devices()
    devices = devices or (min(len(found), few) if jax.default_backend() == "cpu" else 1)
    if devices > len(found):
        raise ValueError(f"--devices {devices}: there are only {len(found)} ({found[0].device_kind})")
    return mesh_of(found[:devices])
