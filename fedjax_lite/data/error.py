"""What readers of files raise."""

__all__ = ["DataError"]


class DataError(ValueError):
    """A file that cannot be read as data: it says which file, where in it, and what to do."""
