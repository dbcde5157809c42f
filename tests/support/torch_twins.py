"""The package's networks in PyTorch, with the names that `fl.export.state_dict` returns: images channels first, tokens [batch, time].

Nothing here is the package's: copy the class of your network. Arguments are those of the network in `fl.models`."""

import torch
import torch.nn.functional as F
from torch import nn


class MLP(nn.Module):
    """`mlp`; with `hidden=()` also `logistic` and `linear`. An example of several axes is flattened in its own order, channels last."""

    def __init__(self, inputs, hidden=(200, 200), classes=10, norm="none", bias=True):
        super().__init__()
        sizes = [inputs, *hidden, classes]
        self.dense = nn.ModuleList(nn.Linear(*pair, bias=bias) for pair in zip(sizes, sizes[1:]))
        make = {"batch": nn.BatchNorm1d, "layer": lambda width: nn.LayerNorm(width, eps=1e-6)}.get(norm)
        self.norm = nn.ModuleList(make(width) for width in hidden) if make else None

    def forward(self, x):
        x = x.flatten(1)
        for k, layer in enumerate(self.dense[:-1]):
            x = layer(x)
            x = F.relu(x if self.norm is None else self.norm[k](x))
        return self.dense[-1](x)


class CNN(nn.Module):
    """Blocks of convolutions with ReLU, each block with max pooling 2x2, then dense layers with ReLU, and an output.

    | network | blocks | window | padding | margin | hidden |
    | emnist_cnn | ((32, 64),) | 3 | 0 | 0 | (128,) |
    | mcmahan_cnn | ((32,), (64,)) | 5 | 2 | 0 | (512,) |
    | cifar_cnn | ((32, 32), (64, 64)) | 3 | 1 | 0 | (512,) |
    | feddyn_cnn | ((64,), (64,)) | 5 | 0 | 0 | (384, 192) |
    | lenet5 | ((6,), (16,)) | 5 | 0 | its padding | (120, 84) |
    | vgg11 | ((64,), (128,), (256, 256), (512, 512), (512, 512)) | 3 | 1 | 0 | () |

    Args:
        image: (channels, height, width).
    """

    def __init__(self, image, blocks, window, padding, hidden, classes=10, margin=0, groups=0):
        super().__init__()
        channels, height, width = image
        self.blocks_of, self.margin, self.conv = [len(block) for block in blocks], margin, nn.ModuleList()
        height, width = height + 2 * margin, width + 2 * margin
        for block in blocks:
            for out in block:
                self.conv.append(nn.Conv2d(channels, out, window, padding=padding))
                channels, height, width = out, height + 2 * padding - window + 1, width + 2 * padding - window + 1
            height, width = height // 2, width // 2
        self.norm = nn.ModuleList(nn.GroupNorm(groups, conv.out_channels) for conv in self.conv) if groups else None
        sizes = [channels * height * width, *hidden, classes]
        self.dense = nn.ModuleList(nn.Linear(*pair) for pair in zip(sizes, sizes[1:]))

    def forward(self, x):
        x, k = F.pad(x, 4 * [self.margin]), 0
        for convolutions in self.blocks_of:
            for _ in range(convolutions):
                x = self.conv[k](x)
                x = F.relu(x if self.norm is None else self.norm[k](x))
                k += 1
            x = F.max_pool2d(x, 2)
        x = x.flatten(1)
        for layer in self.dense[:-1]:
            x = F.relu(layer(x))
        return self.dense[-1](x)


class Residual(nn.Module):
    """A block of a residual network."""

    def __init__(self, channels, width, stride, groups, projected):
        super().__init__()
        more = stride > 1 or channels != width
        convolutions = [
            (channels, width, 3, stride, 1),
            (width, width, 3, 1, 1),
            *([(channels, width, 1, stride)] if more and projected else []),
        ]
        self.conv = nn.ModuleList(nn.Conv2d(*sizes, bias=False) for sizes in convolutions)
        self.norm = nn.ModuleList(nn.GroupNorm(groups, width) for _ in convolutions)
        self.stride, self.more = stride, width - channels

    def forward(self, x):
        y = self.norm[1](self.conv[1](F.relu(self.norm[0](self.conv[0](x)))))
        if len(self.conv) > 2:
            x = self.norm[2](self.conv[2](x))
        elif x.shape != y.shape:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        return F.relu(x + y)


class ResNet(nn.Module):
    """`resnet18`: blocks=2, projected; `resnet20`: widths (16, 32, 64), blocks=3, projected where shortcut is "projection"."""

    def __init__(self, channels=3, classes=10, widths=(64, 128, 256, 512), blocks=2, groups=2, projected=True, stem="cifar"):
        super().__init__()
        window, stride = (3, 1) if stem == "cifar" else (7, 2)
        self.stem, self.blocks, width = stem, nn.ModuleList(), widths[0]
        self.conv = nn.ModuleList([nn.Conv2d(channels, width, window, stride, window // 2, bias=False)])
        self.norm = nn.ModuleList([nn.GroupNorm(groups, width)])
        for stage, out in enumerate(widths):
            for number in range(blocks):
                self.blocks.append(Residual(width, out, 2 if stage and not number else 1, groups, projected))
                width = out
        self.dense = nn.ModuleList([nn.Linear(width, classes)])

    def forward(self, x):
        x = F.relu(self.norm[0](self.conv[0](x)))
        x = F.max_pool2d(x, 3, 2, 1) if self.stem == "imagenet" else x
        for block in self.blocks:
            x = block(x)
        return self.dense[0](x.mean((2, 3)))


class NextToken(nn.Module):
    """`char_lstm`; with projected=True `word_lstm`, whose layers are each projected to the embedding's width."""

    def __init__(self, vocabulary, embedding=8, hidden=256, layers=2, projected=False):
        super().__init__()
        width = embedding if projected else hidden
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.ModuleList(nn.LSTM(width if k else embedding, hidden, batch_first=True) for k in range(layers))
        self.dense = nn.ModuleList([*(nn.Linear(hidden, width) for _ in range(layers * projected)), nn.Linear(width, vocabulary)])

    def forward(self, x):
        x = self.embedding(x)
        for k, lstm in enumerate(self.lstm):
            x = lstm(x)[0]
            x = self.dense[k](x) if len(self.dense) > 1 else x
        return self.dense[-1](x)


def tanh_gelu(x):
    return F.gelu(x, approximate="tanh")


class Rotary(nn.TransformerEncoderLayer):
    """PyTorch's layer with its own parameters, whose attention turns queries and keys by their positions."""

    def _sa_block(self, x, *masks, **options):
        query, key, value = (
            part.unflatten(-1, (self.self_attn.num_heads, -1)).transpose(1, 2)
            for part in F.linear(x, self.self_attn.in_proj_weight, self.self_attn.in_proj_bias).chunk(3, -1)
        )
        half = query.shape[-1] // 2
        place, pair = (torch.arange(count, dtype=x.dtype, device=x.device) for count in (x.shape[1], half))
        angle = place[:, None] * 10000.0 ** (-pair / half)

        def turned(y):
            first, second = y.chunk(2, -1)
            return torch.cat([first * angle.cos() - second * angle.sin(), first * angle.sin() + second * angle.cos()], -1)

        seen = F.scaled_dot_product_attention(turned(query), turned(key), value, is_causal=True)
        return self.self_attn.out_proj(seen.transpose(1, 2).flatten(2))


class Decoder(nn.Module):
    """`transformer`, without padding: with learned positions its blocks are PyTorch's own."""

    def __init__(self, vocabulary=90, width=128, layers=2, heads=4, positions="rotary", length=1024):
        super().__init__()
        layer = nn.TransformerEncoderLayer if positions == "learned" else Rotary
        options = dict(dropout=0.0, activation=tanh_gelu, batch_first=True, norm_first=True)
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.zeros(length, width)) if positions == "learned" else None
        self.blocks = nn.ModuleList(layer(width, heads, 4 * width, **options) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        x, time = self.embedding(x), x.shape[1]
        x = x if self.positions is None else x + self.positions[:time]
        mask = nn.Transformer.generate_square_subsequent_mask(time, device=x.device, dtype=x.dtype)
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        return self.norm(x) @ self.embedding.weight.T
