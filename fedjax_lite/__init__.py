"""fedjax_lite: federated learning research in JAX. A whole run, and a whole study of runs, is one compiled program."""

from fedjax_lite import (
    aggregators,
    algorithms,
    attacks,
    availability,
    baselines,
    checks,
    clock,
    data,
    distill,
    export,
    leaves,
    mixing,
    models,
    plots,
    privacy,
    sampling,
    schedules,
    uplink,
    writers,
)
from fedjax_lite.algorithms.freeze import freeze
from fedjax_lite.algorithms.in_turn import in_turn
from fedjax_lite.arena import Arena, arena
from fedjax_lite.base import (
    Aggregator,
    Algorithm,
    Batch,
    Client,
    ClientWork,
    Info,
    Mean,
    Server,
    Shared,
    State,
    round_key,
)
from fedjax_lite.batches import Batches
from fedjax_lite.clients import Family
from fedjax_lite.comparison import Comparison, check, compare
from fedjax_lite.data import partition, split
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.train_test import TrainTest
from fedjax_lite.engine import packed, padded, sequential
from fedjax_lite.engine.over_runs import over_runs
from fedjax_lite.evaluation import (
    Classification,
    FineTune,
    class_scores,
    classification,
    evaluate,
    evaluate_each,
    fine_tuned,
    summarize,
)
from fedjax_lite.federate import federate
from fedjax_lite.runner.convergence import Convergence
from fedjax_lite.runner.host_rows import Touched
from fedjax_lite.runner.hosts import join_hosts
from fedjax_lite.runner.loaded import Run, load_run
from fedjax_lite.runner.model_file import load_params
from fedjax_lite.runner.plan import Plan, plan
from fedjax_lite.runner.result import Result
from fedjax_lite.runner.run import run
from fedjax_lite.schedules import on_client_step, on_round, on_step
from fedjax_lite.server import adaptive_rate, optimizer_server
from fedjax_lite.simulate import advance, simulate
from fedjax_lite.study import Study, study
from fedjax_lite.work import gradient_term, keep_leaves, loss_term, sgd_work, train_leaves

__all__ = [
    "Aggregator",
    "Algorithm",
    "Arena",
    "Batch",
    "Batches",
    "Classification",
    "Client",
    "ClientWork",
    "Comparison",
    "Convergence",
    "Family",
    "FederatedData",
    "FineTune",
    "Info",
    "Mean",
    "Plan",
    "Result",
    "Run",
    "Server",
    "Shared",
    "State",
    "Study",
    "Touched",
    "TrainTest",
    "adaptive_rate",
    "advance",
    "aggregators",
    "algorithms",
    "arena",
    "attacks",
    "availability",
    "baselines",
    "check",
    "checks",
    "class_scores",
    "classification",
    "clock",
    "compare",
    "data",
    "distill",
    "evaluate",
    "evaluate_each",
    "export",
    "federate",
    "fine_tuned",
    "freeze",
    "gradient_term",
    "in_turn",
    "join_hosts",
    "keep_leaves",
    "leaves",
    "load_params",
    "load_run",
    "loss_term",
    "mixing",
    "models",
    "on_client_step",
    "on_round",
    "on_step",
    "optimizer_server",
    "over_runs",
    "packed",
    "padded",
    "partition",
    "plan",
    "plots",
    "privacy",
    "round_key",
    "run",
    "sampling",
    "schedules",
    "sequential",
    "sgd_work",
    "simulate",
    "split",
    "study",
    "summarize",
    "train_leaves",
    "uplink",
    "writers",
]
