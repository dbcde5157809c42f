"""`fedjax-lite export RUN --to jax`: a run's global model, for other programs."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import shtab

from fedjax_lite import export
from fedjax_lite.cli.options import Parents, completed
from fedjax_lite.cli.outcome import Outcome
from fedjax_lite.leaves import paths_of
from fedjax_lite.runner.files import replacing
from fedjax_lite.runner.loaded import Run, load_run
from fedjax_lite.runner.model_file import save_leaves

__all__ = ["add"]

EXAMPLES = """\
examples:
  fedjax-lite export runs/quickstart --to jax                          runs/quickstart/model.jax: predicts on CPUs, GPUs and TPUs
  fedjax-lite export runs/quickstart --to torch --out state.safetensors
  fedjax-lite export runs/quickstart --to arrays --best --out best.npz
"""


def add(commands: Any, parents: Parents) -> argparse.ArgumentParser:
    """Add the command."""
    parser = commands.add_parser("export", parents=[parents.json], help="write a run's model for other programs", epilog=EXAMPLES)
    completed(parser.add_argument("folder", type=Path, metavar="RUN", help="the folder of a run that has ended"), shtab.DIRECTORY)
    parser.add_argument(
        "--to",
        choices=list(WRITERS),
        required=True,
        help="jax: a compiled prediction; torch: a state dict of PyTorch, as safetensors; arrays: an npz, names in order",
    )
    completed(parser.add_argument("--out", type=Path, help="the file to write (default: in RUN, model.jax, torch.safetensors, arrays.npz)"))
    parser.add_argument("--best", action="store_true", help="the best model, which [run] keep_best has kept, instead of the last")
    parser.add_argument("--own-code", action="store_true", help="run the function of yours that made the model; for runs of your own only")
    parser.set_defaults(run=_export)
    return parser


def _export(options: argparse.Namespace) -> Outcome:
    run = load_run(options.folder, best=options.best, own_code=options.own_code)
    if run.params is None or (run.model is None and options.to != "arrays"):
        run.predict(None)  # says what is missing
    name, write = WRITERS[options.to]
    out = options.out or options.folder / name
    out.parent.mkdir(parents=True, exist_ok=True)
    told = write(run, out)
    size = out.stat().st_size
    return Outcome(f"{told}\nwritten to {out}: {size:,} bytes", {"to": options.to, "file": out, "bytes": size})


def _prediction(run: Run, out: Path) -> str:
    """Write the prediction, and say what it takes."""
    assert run.model is not None
    if run.example is None:
        raise ValueError(
            f"{out.name}: the run does not tell of its examples: write it with fl.export.prediction(model, params, example, path)"
        )
    found = export.load_prediction(export.prediction(run.model, run.params, run.example, out))
    takes = ", ".join(f"{name} {x.dtype}[{', '.join(map(str, x.shape))}]" for name, x in found.inputs.items())
    return f"takes {takes} on {', '.join(found.platforms)}"


def _state_dict(run: Run, out: Path) -> str:
    """Write the state dict, and say how PyTorch reads it."""
    assert run.model is not None
    save_leaves(out, export.state_dict(run.model, run.params))
    return f"module.load_state_dict(safetensors.torch.load_file({str(out)!r}))"


def _arrays(run: Run, out: Path) -> str:
    """Write the arrays by name, in the order of `fl.export.arrays`, and say how many there are."""
    named: dict[str, Any] = dict(zip(sorted(paths_of(run.params)), export.arrays(run.params), strict=True))
    if strange := [name for name, x in named.items() if x.dtype.kind == "V"]:
        raise ValueError(f"--to arrays: {strange[0]} is {named[strange[0]].dtype}, which an npz does not hold: take --to torch")
    with replacing(out) as temporary, open(temporary, "wb") as file:
        np.savez(file, **named)
    return f"{len(named)} arrays: {', '.join(named)}"


WRITERS: dict[str, tuple[str, Callable[[Run, Path], str]]] = {
    "jax": ("model.jax", _prediction),
    "torch": ("torch.safetensors", _state_dict),
    "arrays": ("arrays.npz", _arrays),
}
