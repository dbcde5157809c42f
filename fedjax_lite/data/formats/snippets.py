"""Shakespeare's snippets as windows of characters with the next ones, over TFF's vocabulary."""

from collections.abc import Sequence

import numpy as np

from fedjax_lite.data import text

BOS, EOS = 1, 2  # PAD is 0
# The characters of TFF's tutorial "Federated Learning for Text Generation", in its order.
CHARACTERS = "dhlptx@DHLPTX $(,048cgkoswCGKOSW[_#'/37;?bfjnrvzBFJNRVZ\"&*.26:\naeimquyAEIMQUY]!%)-159\r"
WORDS = ("<PAD>", "<BOS>", "<EOS>", *CHARACTERS, "<OOV>")  # the token i is WORDS[i]
_TOKENS = np.full(256, len(WORDS) - 1, np.int32)
_TOKENS[list(CHARACTERS.encode())] = 3 + np.arange(len(CHARACTERS))


def windows(snippets: Sequence[bytes], length: int) -> dict[str, np.ndarray]:
    """Join a client's snippets and cut them into windows: "x" and the next characters "y", int32 `[windows, length]`.

    Each snippet stands between BOS and EOS; the last window is filled up with PAD in both, as `fl.data.windows` does.

    >>> {leaf: array.tolist() for leaf, array in windows([b"dh", b"l"], 4).items()}
    {'x': [[1, 3, 4, 2], [1, 5, 0, 0]], 'y': [[3, 4, 2, 1], [5, 2, 0, 0]]}

    Source: Ro, Suresh, Wu 2021, "FedJAX: Federated learning simulation with JAX", its Shakespeare.
    """
    lengths = np.fromiter(map(len, snippets), np.int64, len(snippets))
    ends = np.cumsum(lengths + 2)
    tokens = np.empty(ends[-1] if len(ends) else 0, np.int32)
    tokens[ends - lengths - 2], tokens[ends - 1] = BOS, EOS
    tokens[np.arange(lengths.sum()) + 1 + 2 * np.repeat(np.arange(len(lengths)), lengths)] = _TOKENS[
        np.frombuffer(b"".join(snippets), np.uint8)
    ]
    return text.windows(tokens, length)
