"""Models: any pair of pure functions `init` and `apply`; the networks here are flax."""

from fedjax_lite.models.losses import supervised
from fedjax_lite.models.networks import Model, from_linen, linear, mlp

__all__ = ["Model", "from_linen", "linear", "mlp", "supervised"]
