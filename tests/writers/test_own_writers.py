"""The writers that docs/running.md shows for Weights & Biases and MLflow, run with stand-ins that record."""

from loggers import stand_in
from pages import blocks
from segments import run


def test_the_writers_of_the_docs_record_every_round(monkeypatch):
    told, names = stand_in(monkeypatch), {}
    (block,) = (block for block in blocks("docs/running.md") if "class WeightsAndBiases" in block)
    exec(block, names)
    history = run(writers=[names["WeightsAndBiases"](project="fl", config={}), names["MLflow"]()]).history
    assert told["wandb"] == [(record["round"], record) for record in history]
    numbers = [{name: value for name, value in record.items() if isinstance(value, float)} for record in history]
    assert told["mlflow"] == [(record["round"], values) for record, values in zip(history, numbers, strict=True)]
    assert {"test_loss", "loss"} <= numbers[-1].keys()
