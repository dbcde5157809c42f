"""Layers of networks in plain NumPy, float64: channels last."""

import numpy as np


def conv(x, kernel, stride=1, margin=0, bias=0.0):
    """A convolution of `[batch, height, width, in]` with zeros around the image, window by window."""
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("bhwcij,ijco->bhwo", windows, kernel) + bias


def pool(x, window=2, stride=2, margin=0):
    """The maximum of each window."""
    x = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)), constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(x, (window, window), axis=(1, 2))[:, ::stride, ::stride].max(axis=(-2, -1))


def group_norm(x, scale, bias, groups, epsilon=1e-5):
    """Group by group: equations 1, 2 and 7 of Wu and He (2018)."""
    x = np.asarray(x, np.float64)
    z, size = np.zeros(x.shape), x.shape[-1] // groups
    for example in range(len(x)):
        for group in range(groups):
            part = x[example, ..., group * size : (group + 1) * size]
            spread = np.sqrt(np.mean((part - part.mean()) ** 2) + epsilon)
            z[example, ..., group * size : (group + 1) * size] = (part - part.mean()) / spread
    return z * np.asarray(scale) + np.asarray(bias)


def relu(x):
    return np.maximum(x, 0)


def residual(params, x, stride, groups):
    """A residual block, with the shortcut that its parameters and sizes ask for."""

    def norm(y, k):
        return group_norm(y, params[f"GroupNorm_{k}"]["scale"], params[f"GroupNorm_{k}"]["bias"], groups)

    y = relu(norm(conv(x, params["Conv_0"]["kernel"], stride, 1), 0))
    y = norm(conv(y, params["Conv_1"]["kernel"], 1, 1), 1)
    if "Conv_2" in params:
        return relu(norm(conv(x, params["Conv_2"]["kernel"], stride), 2) + y)
    shortcut = np.zeros(y.shape)
    shortcut[..., : x.shape[-1]] = x[:, ::stride, ::stride]
    return relu(shortcut + y)


def layer_norm(p, x, epsilon=1e-5):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon) * p["scale"] + p["bias"]


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def turned(x, position):
    """One head's vector at a position: pairs (j, j + d/2) as complex numbers, turned."""
    half = len(x) // 2
    pairs = (x[:half] + 1j * x[half:]) * np.exp(1j * position * 10000.0 ** (-2 * np.arange(half) / len(x)))
    return np.concatenate([pairs.real, pairs.imag])


def decoder(params, tokens, heads, layers, rotary, padding=None):
    """The logits of one sequence, query by query and head by head."""
    h = params["embedding"][tokens] + (0 if rotary else params["positions"][: len(tokens)])
    size = h.shape[1] // heads
    for layer in range(layers):
        p = params[f"_Block_{layer}"]
        query, key, value = np.split(dense(p["Dense_0"], layer_norm(p["LayerNorm_0"], h)), 3, axis=1)
        seen = np.zeros(h.shape)
        for t in range(len(tokens)):
            before = [s for s in range(t + 1) if s == t or tokens[s] != padding]
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                q, ks = query[t, part], key[before, part]
                if rotary:
                    q, ks = turned(q, t), np.stack([turned(k, s) for k, s in zip(ks, before, strict=True)])
                weight = np.exp(ks @ q / np.sqrt(size))
                seen[t, part] = weight @ value[before, part] / weight.sum()
        h = h + dense(p["Dense_1"], seen)
        u = dense(p["Dense_2"], layer_norm(p["LayerNorm_1"], h))
        u = 0.5 * u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3)))
        h = h + dense(p["Dense_3"], u)
    return layer_norm(params["LayerNorm_0"], h) @ params["embedding"].T
