"""What other libraries say of a damaged file."""

import pytest

from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.reading import reading


@pytest.mark.parametrize("kind", [ValueError, OSError])
def test_a_library_that_tells_all_bytes_is_cut_short(kind):
    with pytest.raises(DataError, match="^a.npz: x+[.]{3}") as caught, reading("a.npz", OSError):
        raise kind("x" * 5000)
    assert len(str(caught.value)) < 600


def test_what_names_the_file_already_keeps_its_words():
    file = "far/" * 120 + "a.npz"
    with pytest.raises(DataError, match=f"^{file}: a mistake, and its remedy$"), reading(file):
        raise DataError(f"{file}: a mistake, and its remedy")
