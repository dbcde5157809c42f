"""Stand-ins for Weights & Biases and MLflow, which record what they are told; with the real ones' signatures, as far as docs use them."""

import sys
import types


def stand_in(monkeypatch):
    """Put both modules where an import finds them; returns what they are told: (step, values) of each call."""
    told = {"wandb": [], "mlflow": []}
    run = types.SimpleNamespace(log=lambda data, step=None: told["wandb"].append((step, data)))
    wandb = types.ModuleType("wandb")
    wandb.init = lambda project=None, config=None: run
    mlflow = types.ModuleType("mlflow")
    mlflow.log_metrics = lambda metrics, step=None: told["mlflow"].append((step, metrics))
    for module in (wandb, mlflow):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return told
