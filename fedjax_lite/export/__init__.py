"""Models for other programs: lists of arrays, a compiled prediction in one file, and state dicts of PyTorch."""

from fedjax_lite.export.arrays import arrays, from_arrays
from fedjax_lite.export.prediction import Prediction, load_prediction, prediction
from fedjax_lite.export.pytorch import from_state_dict, state_dict

__all__ = ["Prediction", "arrays", "from_arrays", "from_state_dict", "load_prediction", "prediction", "state_dict"]
