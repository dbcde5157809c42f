"""The built-in uplinks in the arena, with their arguments, and those left out."""

import optax

from fedjax_lite import uplink as of

UPLINKS: dict[str, optax.GradientTransformation | None] = {
    "none": None,
    "top_k(0.05), error_feedback": of.error_feedback(of.top_k(0.05)),
    "top_k(0.01), error_feedback": of.error_feedback(of.top_k(0.01)),
    "random_k(0.05)": of.random_k(0.05),
    "uniform(16)": of.uniform(16),
    "uniform(4)": of.uniform(4),
    "qsgd(16)": of.qsgd(16),
    "qsgd(4)": of.qsgd(4),
    "sign, times 0.01": optax.chain(of.sign(), optax.scale(0.01)),  # each coordinate is 1 or -1: the server needs a rate
    "scaled_sign, error_feedback": of.error_feedback(of.scaled_sign()),
    "terngrad": of.terngrad(),
    "rotate(uniform(4))": of.rotate(of.uniform(4)),
    "drive": of.drive(),
    "eden(4)": of.eden(bits=4),
    "eden(2)": of.eden(bits=2),
    "power_sgd(2), error_feedback": of.error_feedback(of.power_sgd(2)),
    "power_sgd(1), error_feedback": of.error_feedback(of.power_sgd(1)),
}
LEFT_OUT = {
    "local_gaussian": "private: adds noise and saves no bits",
    "local_laplace": "private: adds noise and saves no bits",
    "apart": "keeps the draws of a chain apart",
    "compressor": "makes uplinks",
    "entropy_bits": "counts",
}
