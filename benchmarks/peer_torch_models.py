"""The workloads' models and data in PyTorch, for `peer_torch.py` and `peer_pfl.py`."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from workloads import WORKLOADS


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense1, self.dense2, self.dense3 = nn.Linear(784, 200), nn.Linear(200, 200), nn.Linear(200, 10)

    def forward(self, x):
        return self.dense3(F.relu(self.dense2(F.relu(self.dense1(x.reshape(x.shape[0], 784))))))


class EmnistCNN(nn.Module):
    """Inputs and the flatten are in height, width, channels order; convolutions see channels-last memory."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.dense1, self.dense2 = nn.Linear(9216, 128), nn.Linear(128, 62)

    def forward(self, x):
        x = F.relu(self.conv2(F.relu(self.conv1(x.permute(0, 3, 1, 2)))))
        x = F.max_pool2d(x, 2).permute(0, 2, 3, 1).flatten(1)
        return self.dense2(F.relu(self.dense1(x)))


class CharLSTM(nn.Module):
    """`nn.LSTM` adds two biases; one of them is held at zero, because training both would double the bias's learning rate."""

    def __init__(self):
        super().__init__()
        self.embedding, self.lstm, self.dense = nn.Embedding(90, 8), nn.LSTM(8, 256, 2, batch_first=True), nn.Linear(256, 90)
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("bias_hh"):
                nn.init.zeros_(parameter).requires_grad_(False)

    def forward(self, x):
        return self.dense(self.lstm(self.embedding(x))[0])


class Images(nn.Module):
    """Layers of images `[batch, height, width, channels]`, whose flatten is in that order; dense layers with ReLU, and an output."""

    def __init__(self, layers, dense):
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.dense = nn.ModuleList(nn.Linear(*sizes) for sizes in zip(dense, dense[1:], strict=False))

    def forward(self, x):
        x = self.layers(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(1)
        for layer in self.dense[:-1]:
            x = F.relu(layer(x))
        return self.dense[-1](x)


def plain(blocks, window, padding, channels, dense):
    """Convolutions with ReLU, max pooling after each block of them, dense layers."""
    layers = []
    for widths in blocks:
        for width in widths:
            layers += [nn.Conv2d(channels, width, window, padding=padding), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return Images(layers, dense)


class Residual(nn.Module):
    """A block of a residual network, its normalisations of two groups; where the width changes, a convolution or padding beside it."""

    def __init__(self, channels, width, stride, padded):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.stride, self.more, projected = stride, width - channels, channels != width and not padded
        self.shortcut = nn.Conv2d(channels, width, 1, stride, bias=False) if projected else None
        self.norm1, self.norm2 = nn.GroupNorm(2, width), nn.GroupNorm(2, width)
        self.norm = nn.GroupNorm(2, width) if projected else None

    def forward(self, x):
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.shortcut is not None:
            return F.relu(y + self.norm(self.shortcut(x)))
        return F.relu(y + (F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more)) if self.more else x))


def resnet(widths, blocks, padded):
    layers, channels = [nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.GroupNorm(2, widths[0]), nn.ReLU()], widths[0]
    for width in widths:
        for number in range(blocks):
            layers.append(Residual(channels, width, 2 if number == 0 and width != widths[0] else 1, padded))
            channels = width
    return Images([*layers, nn.AdaptiveAvgPool2d(1)], [channels, 10])


class Attending(nn.Module):
    """A block of a decoder of four heads with rotary positions, normalised in front."""

    def __init__(self, width=128, heads=4):
        super().__init__()
        self.heads, self.norm1, self.norm2 = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dense1, self.dense2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, cos, sin):
        def turned(x):
            first, second = x.chunk(2, -1)
            return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)

        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        seen = F.scaled_dot_product_attention(turned(query), turned(key), value, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.dense2(F.gelu(self.dense1(self.norm2(x)), approximate="tanh"))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.blocks, self.norm = nn.Embedding(90, 128), nn.ModuleList(Attending() for _ in range(2)), nn.LayerNorm(128)
        angle = torch.arange(80)[:, None] * 10000.0 ** (-torch.arange(16) / 16)
        self.cos, self.sin = angle.cos(), angle.sin()

    def forward(self, x):
        x = self.embedding(x)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.norm(x) @ self.embedding.weight.t()


VGG11 = (64,), (128,), (256, 256), (512, 512), (512, 512)
MODELS = {
    "softmax": lambda: nn.Linear(60, 10),
    "mlp": MLP,
    "emnist_cnn": EmnistCNN,
    "char_lstm": CharLSTM,
    "lenet5": lambda: plain(((6,), (16,)), 5, 0, 1, [256, 120, 84, 10]),
    "vgg11": lambda: plain(VGG11, 3, 1, 3, [512, 10]),
    "resnet18": lambda: resnet((64, 128, 256, 512), 2, padded=False),
    "resnet20": lambda: resnet((16, 32, 64), 3, padded=True),
    "transformer": Transformer,
}


def build(workload, start=None):
    """The workload's model, with the parameters in the file `start` (flax's layouts, see `peers.py`) if one is given."""
    torch.manual_seed(0)
    model = MODELS[workload]()
    if start:
        arrays = np.load(start)
        for i, (name, parameter) in enumerate(trained(model).items()):
            value = torch.from_numpy(arrays[str(i)])
            if value.dim() == 4:
                value = value.permute(3, 2, 0, 1)  # height, width, in, out -> out, in, height, width
            elif value.dim() == 2 and not name.startswith("embedding"):
                value = value.t()
            if value.shape != parameter.shape:
                raise ValueError(f"{start}: array {i} does not fit {name}: {tuple(value.shape)} for {tuple(parameter.shape)}")
            parameter.data.copy_(value)
    return model


def trained(model):
    """The model's trained parameters by name, in the order of the forward pass."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def mean_loss(logits, labels):
    """Mean cross-entropy over examples and, in texts, characters."""
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))


def example_losses(logits, labels):
    """Cross-entropy of each example, `[batch]`; of a text, the mean over its characters."""
    losses = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), reduction="none")
    return losses.reshape(labels.shape[0], -1).mean(1)


class Data:
    """All clients' examples as two contiguous tensors."""

    def __init__(self, workload):
        self.workload = WORKLOADS[workload]
        inputs, labels = self.workload.examples()
        self.x = torch.from_numpy(np.ascontiguousarray(inputs))
        self.x = self.x if self.x.is_floating_point() else self.x.long()
        self.y = torch.from_numpy(labels.astype(np.int64))
        self.sizes = self.workload.sizes
        self.offsets = np.concatenate([[0], np.cumsum(self.sizes)])
        self.steps = -(-self.sizes // self.workload.batch)

    def client(self, c):
        """One client's inputs and labels."""
        part = slice(int(self.offsets[c]), int(self.offsets[c + 1]))
        return self.x[part], self.y[part]

    def batches(self, c):
        """One client's batches in order; the last may be short."""
        x, y = self.client(c)
        return zip(x.split(self.workload.batch), y.split(self.workload.batch), strict=True)

    def stacked_batches(self, ids):
        """Steps of many clients at once, `ids` in order of falling `steps`: clients still training, inputs, labels, mask.

        The prefix of clients that still train shrinks from step to step, so only a client's short last batch is padded.
        """
        slots, batch, shape = np.arange(self.workload.batch), self.workload.batch, self.workload.shape
        for step in range(int(self.steps[ids[0]])):
            active = ids[self.steps[ids] > step]
            real = np.minimum(self.sizes[active] - step * batch, batch)[:, None]
            index = torch.from_numpy(self.offsets[active, None] + step * batch + np.minimum(slots, real - 1)).reshape(-1)
            x, y = self.x.index_select(0, index), self.y.index_select(0, index)
            mask = torch.from_numpy((slots < real).astype(np.float32))
            yield len(active), x.view(len(active), batch, *shape), y.view(len(active), batch, *y.shape[1:]), mask
