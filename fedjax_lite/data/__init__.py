"""Data: where a population's examples come from, and how a central data set is dealt to clients."""

from fedjax_lite.data import partition
from fedjax_lite.data.cached import cached
from fedjax_lite.data.digits import digits
from fedjax_lite.data.error import DataError
from fedjax_lite.data.feature_skew import feature_noise, rotated
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.formats.arff import arff
from fedjax_lite.data.formats.arrow import arrow, parquet
from fedjax_lite.data.formats.cifar import cifar
from fedjax_lite.data.formats.csv import csv
from fedjax_lite.data.formats.fedjax_sqlite import fedjax_sqlite
from fedjax_lite.data.formats.idx import mnist
from fedjax_lite.data.formats.images import images
from fedjax_lite.data.formats.leaf import leaf
from fedjax_lite.data.formats.npz import npz
from fedjax_lite.data.formats.pfllib import pfllib
from fedjax_lite.data.formats.text import text
from fedjax_lite.data.formats.tff_hdf5 import tff_hdf5
from fedjax_lite.data.formats.tff_sqlite import tff_sqlite
from fedjax_lite.data.label_skew import label_skew
from fedjax_lite.data.load import load
from fedjax_lite.data.new_clients import hold_out_clients
from fedjax_lite.data.noise import class_counts, hold_out, noise
from fedjax_lite.data.picture import picture
from fedjax_lite.data.recognise import Recognised, recognise
from fedjax_lite.data.save import save
from fedjax_lite.data.split import split
from fedjax_lite.data.store import Store, store
from fedjax_lite.data.synthetic import synthetic
from fedjax_lite.data.table import table
from fedjax_lite.data.text import Vocabulary, decode, encode, tokens_of, vocabulary_of, windows
from fedjax_lite.data.train_test import TrainTest

__all__ = [
    "DataError",
    "FederatedData",
    "Recognised",
    "Store",
    "TrainTest",
    "Vocabulary",
    "arff",
    "arrow",
    "cached",
    "cifar",
    "class_counts",
    "csv",
    "decode",
    "digits",
    "encode",
    "feature_noise",
    "fedjax_sqlite",
    "hold_out",
    "hold_out_clients",
    "images",
    "label_skew",
    "leaf",
    "load",
    "mnist",
    "noise",
    "npz",
    "parquet",
    "partition",
    "pfllib",
    "picture",
    "recognise",
    "rotated",
    "save",
    "split",
    "store",
    "synthetic",
    "table",
    "text",
    "tff_hdf5",
    "tff_sqlite",
    "tokens_of",
    "vocabulary_of",
    "windows",
]
