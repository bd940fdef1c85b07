# ruff: noqa: D102  what forward computes is said on its class
"""Blocks: the layers VajraV1 is made of, in train form; ``fusion`` turns them into deploy form.

Attribute names are upstream's state_dict keys. Every tensor is NCHW. "Halves" are the first and the last half of the
channels, in that order.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BN_EPS = 1e-3  # not in any checkpoint; torch's default of 1e-5 gives wrong boxes
BN_MOMENTUM = 0.03
HEAD_CHANNELS = 64  # of one attention head


class ConvBNAct(nn.Module):
    """Convolution without bias, batch norm, SiLU; with ``activation=False`` no SiLU.

    Args:
        c_in: input channels.
        c_out: output channels.
        kernel: side in pixels; padded by half of it.
        stride: step in pixels.
        groups: ``c_in`` for a depthwise convolution.
        activation: apply SiLU.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, activation: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(c_out, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.activation = nn.SiLU() if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.bn(self.conv(x)))


def depthwise(channels: int, kernel: int, *, activation: bool = True) -> ConvBNAct:
    """One filter a channel."""
    return ConvBNAct(channels, channels, kernel, groups=channels, activation=activation)


class RepVGG(nn.Module):
    """3x3 and 1x1 convolutions side by side, then SiLU; one 3x3 when fused."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvBNAct(channels, channels, 3, activation=False)
        self.conv2 = ConvBNAct(channels, channels, 1, activation=False)
        self.activation = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.conv1(x) + self.conv2(x))


class RepVGGDW(nn.Module):
    """Depthwise kxk and 3x3 side by side, then SiLU; one kxk when fused."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = depthwise(channels, kernel, activation=False)
        self.conv1 = depthwise(channels, 3, activation=False)
        self.activation = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.conv(x) + self.conv1(x))


class RepCSP(nn.Module):
    """A series of RepVGG plus a 1x1 shortcut: a sum, not a concatenation."""

    def __init__(self, c_in: int, c_out: int, count: int) -> None:
        super().__init__()
        self.conv1 = ConvBNAct(c_in, c_out)
        self.conv2 = ConvBNAct(c_in, c_out)
        self.bottleneck_blocks = nn.Sequential(*(RepVGG(c_out) for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        return self.bottleneck_blocks(self.conv1(x)) + self.conv2(x)


class MerudandaX(nn.Module):
    """ELAN whose two stages are a RepCSP and a 3x3 each (upstream's VajraV1MerudandaX; MX)."""

    def __init__(self, c_in: int, c_out: int, m1: int, m2: int, count: int) -> None:
        super().__init__()
        self.conv1 = ConvBNAct(c_in, m1)
        self.conv2 = nn.Sequential(RepCSP(m1 // 2, m2, count), ConvBNAct(m2, m2, 3))
        self.conv3 = nn.Sequential(RepCSP(m2, m2, count), ConvBNAct(m2, m2, 3))
        self.conv4 = ConvBNAct(m1 + 2 * m2, c_out)
        self.half = m1 // 2

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv1(x).split(self.half, 1)
        c = self.conv2(b)
        return self.conv4(torch.cat((a, b, c, self.conv3(c)), 1))


class MerudandaDW(nn.Module):
    """Depthwise, 1x1, depthwise, 1x1, depthwise, with a residual around them."""

    def __init__(self, channels: int, middle: int, kernel: int, *, rep: bool) -> None:
        super().__init__()
        self.block = nn.Sequential(
            depthwise(channels, 3),
            ConvBNAct(channels, middle),
            RepVGGDW(middle, kernel) if rep else depthwise(middle, kernel),
            ConvBNAct(middle, channels),
            depthwise(channels, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class RepViTBlock(nn.Module):
    """A MerudandaDW that mixes space, then two 1x1 that mix channels, with a residual around the second part."""

    def __init__(self, channels: int, kernel: int, *, rep: bool) -> None:
        super().__init__()
        self.token_mixer = nn.Sequential(MerudandaDW(channels, channels, kernel, rep=rep))
        self.channel_mixer = nn.Sequential(
            ConvBNAct(channels, 2 * channels), ConvBNAct(2 * channels, channels, activation=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.token_mixer(x)
        return mixed + self.channel_mixer(mixed)


class MerudandaBhag15(nn.Module):
    """Halves, a series of blocks on the second one, all of them joined (upstream's VajraV1MerudandaBhag15; B15)."""

    def __init__(self, c_in: int, c_out: int, count: int, mlp: bool, kernel: int, rep: bool) -> None:
        super().__init__()
        self.half = c_out // 2
        self.conv1 = ConvBNAct(c_in, c_out)
        self.bottleneck_blocks = nn.Sequential(
            *(
                RepViTBlock(self.half, kernel, rep=rep)
                if mlp
                else nn.Sequential(MerudandaDW(self.half, 2 * self.half, kernel, rep=rep))
                for _ in range(count)
            )
        )
        self.conv2 = ConvBNAct((count + 2) * self.half, c_out)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.conv1(x).split(self.half, 1))
        for block in self.bottleneck_blocks:
            parts.append(block(parts[-1]))
        return self.conv2(torch.cat(parts, 1))


class Attention(nn.Module):
    """Full self-attention over the pixels of a map, with a depthwise 3x3 of the values as positional encoding."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // HEAD_CHANNELS
        self.qk = ConvBNAct(channels, 2 * channels, activation=False)
        self.v = ConvBNAct(channels, channels, activation=False)
        self.proj = ConvBNAct(channels, channels, activation=False)
        self.positional_encoding = depthwise(channels, 3, activation=False)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.shape[2] * x.shape[3]
        v_map = self.v(x)
        q, k = self.qk(x).view(-1, self.heads, 2 * HEAD_CHANNELS, pixels).split(HEAD_CHANNELS, 2)
        v = v_map.view(-1, self.heads, HEAD_CHANNELS, pixels)
        scores = (q.transpose(-2, -1) @ k) * HEAD_CHANNELS**-0.5
        attended = (v @ scores.softmax(-1).transpose(-2, -1)).reshape(-1, *x.shape[1:])
        return self.proj(attended + self.positional_encoding(v_map))


class AttentionBlock(nn.Module):
    """Attention, then two 1x1, each with a residual; no layer norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attn = Attention(channels)
        self.conv2 = nn.Sequential(
            ConvBNAct(channels, 2 * channels), ConvBNAct(2 * channels, channels, activation=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.conv2(x)


class SPPF(nn.Module):
    """A 1x1, three 5x5 max pools in series, all four joined by a 1x1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvBNAct(channels, channels // 2)
        self.conv2 = ConvBNAct(2 * channels, channels)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.conv1(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.conv2(torch.cat(parts, 1))


class AttentionBhag6(nn.Module):
    """SPPF, halves, attention on the second one, which comes first again (upstream's VajraV1AttentionBhag6; A6)."""

    def __init__(self, c_in: int, c_out: int, count: int) -> None:
        super().__init__()
        self.half = c_out // 2
        self.sppf = SPPF(c_in)
        self.conv1 = ConvBNAct(c_in, c_out)
        self.attn = nn.Sequential(*(AttentionBlock(self.half) for _ in range(count)))
        self.conv2 = ConvBNAct(c_out, c_out)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv1(self.sppf(x)).split(self.half, 1)
        return self.conv2(torch.cat((self.attn(b), a), 1))


class ADown(nn.Module):
    """Halves the map: one half of the channels through a strided 3x3, the other through a max pool and a 1x1."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.half = c_in // 2
        self.average = nn.AvgPool2d(2, 1)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.conv1 = ConvBNAct(self.half, c_out // 2, 3, 2)
        self.conv2 = ConvBNAct(self.half, c_out // 2)

    def forward(self, x: Tensor) -> Tensor:
        p, q = self.average(x).split(self.half, 1)
        return torch.cat((self.conv1(p), self.conv2(self.pool(q))), 1)


class CBLinear(nn.Module):
    """A plain 1x1 whose output is split into the parts that other levels take (xlarge only)."""

    def __init__(self, c_in: int, parts: tuple[int, ...]) -> None:
        super().__init__()
        self.parts = list(parts)
        self.conv = nn.Conv2d(c_in, sum(parts), 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.conv(x).split(self.parts, 1))


def fuse_levels(links: list[list[Tensor]], index: int, x: Tensor) -> Tensor:
    """Upstream's CBFuse: part ``index`` of each link, enlarged to the size of ``x`` by nearest, summed onto it.

    Args:
        links: outputs of CBLinear, finest level first; the first has the size of ``x``, each further one half of it.
        index: which part.
        x: the map they are summed onto, last.
    """
    parts = [
        link[index]
        if level == 0
        else nn.functional.interpolate(link[index], scale_factor=float(2**level), mode="nearest")
        for level, link in enumerate(links)
    ]
    total = parts[0]
    for part in [*parts[1:], x]:
        total = total + part
    return total
