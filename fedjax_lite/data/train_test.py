"""A data set in its parts: who trains, what is held out, what is public."""

from typing import Any, NamedTuple

from fedjax_lite.base import Tree
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.names import Names


class TrainTest(NamedTuple):
    """A training population and the examples held out of it; `test` is None where none are held out."""

    train: Any  # a FederatedData, or a Store
    test: FederatedData | None

    @property
    def population(self) -> int:
        """The number of training clients."""
        return self.train.population

    @property
    def example(self) -> Tree:
        """One training example, without a batch axis."""
        return self.train.example

    @property
    def words(self) -> tuple[str, ...] | None:
        """The class names, where labels were words: label i was words[i]."""
        return self.train.words

    @property
    def names(self) -> Names | None:
        """The training clients' names, row by row, where they have some."""
        return self.train.names


class Source(NamedTuple):
    """A run's data: a training population, the examples held out of it, and public examples."""

    train: Any  # a FederatedData, or a Store
    test: FederatedData | None
    public: FederatedData | None = None
    new: TrainTest | None = None  # clients that never take part

    @property
    def population(self) -> int:
        """The number of training clients."""
        return self.train.population

    @property
    def example(self) -> Tree:
        """One training example, without a batch axis."""
        return self.train.example

    @property
    def words(self) -> tuple[str, ...] | None:
        """The class names, where labels were words: label i was words[i]."""
        return self.train.words

    @property
    def names(self) -> Names | None:
        """The training clients' names, row by row, where they have some."""
        return self.train.names
