# ruff: noqa: D102  what forward computes is said on its class
"""Blocks: the layers VajraV1 is made of, in train form, and the bodies of its five networks.

Attribute names are upstream's state_dict keys. Every tensor is NCHW. "Halves" are the first and the last half of the
channels, in that order.

Backbone and neck are tables of blocks and one walk through them. The tables are those of the architecture facts;
children are named and ordered as upstream's state_dict is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


SIZES = ("nano", "small", "medium", "large", "xlarge")
_Layer = tuple[Any, ...]  # a block and its arguments


def _mid(width: int) -> dict[str, _Layer]:
    """What nano and small share, with channels in proportion to the stem's width."""
    w = width
    return {
        "stem1": (ConvBNAct, 3, w, 3, 2),
        "stem2": (ConvBNAct, w, 2 * w, 3, 2),
        "vajra_block1": (MerudandaX, 2 * w, 4 * w, 4 * w, 2 * w, 1),
        "conv1": (ConvBNAct, 4 * w, 4 * w, 3, 2),
        "vajra_block2": (MerudandaX, 4 * w, 8 * w, 8 * w, 4 * w, 1),
        "conv2": (ConvBNAct, 8 * w, 8 * w, 3, 2),
        "vajra_block3": (MerudandaX, 8 * w, 8 * w, 8 * w, 4 * w, 1),
        "conv3": (ConvBNAct, 8 * w, 16 * w, 3, 2),
        "vajra_block4": (MerudandaX, 16 * w, 16 * w, 16 * w, 8 * w, 1),
        "sppf_attn": (AttentionBhag6, 16 * w, 16 * w, 1),
        "vajra_neck1": (MerudandaX, 24 * w, 8 * w, 8 * w, 4 * w, 1),
        "vajra_neck2": (MerudandaX, 16 * w, 4 * w, 4 * w, 2 * w, 1),
        "neck_conv1": (ConvBNAct, 4 * w, 4 * w, 3, 2),
        "vajra_neck3": (MerudandaX, 12 * w, 8 * w, 8 * w, 4 * w, 1),
        "neck_conv2": (ConvBNAct, 8 * w, 8 * w, 3, 2),
        "vajra_neck4": (MerudandaBhag15, 24 * w, 16 * w, 1, False, 7, True),
    }


def _wide(rep: int, depth: int, attention: int) -> dict[str, _Layer]:
    """What medium and large share; they differ in how often their blocks repeat."""
    return {
        "stem1": (ConvBNAct, 3, 64, 3, 2),
        "stem2": (ConvBNAct, 64, 128, 3, 2),
        "vajra_block1": (MerudandaX, 128, 256, 128, 64, rep),
        "conv1": (ConvBNAct, 256, 256, 3, 2),
        "vajra_block2": (MerudandaX, 256, 512, 256, 128, rep),
        "conv2": (ConvBNAct, 512, 512, 3, 2),
        "vajra_block3": (MerudandaX, 512, 512, 512, 256, rep),
        "conv3": (ADown, 512, 512),
        "vajra_block4": (MerudandaBhag15, 512, 512, depth, True, 3, False),
        "sppf_attn": (AttentionBhag6, 512, 512, attention),
        "vajra_neck1": (MerudandaBhag15, 1024, 512, depth, False, 3, False),
        "vajra_neck2": (MerudandaX, 1024, 256, 256, 128, rep),
        "neck_conv1": (ConvBNAct, 256, 256, 3, 2),
        "vajra_neck3": (MerudandaBhag15, 768, 512, depth, False, 3, False),
        "neck_conv2": (ADown, 512, 512),
        "vajra_neck4": (MerudandaBhag15, 1024, 512, depth, False, 3, False),
    }


_XLARGE: dict[str, _Layer] = {
    "stem1": (ConvBNAct, 3, 64, 3, 2),
    "stem2": (ConvBNAct, 64, 128, 3, 2),
    "vajra_block1": (MerudandaX, 128, 256, 128, 64, 2),
    "conv1": (ADown, 256, 256),
    "vajra_block2": (MerudandaX, 256, 512, 256, 128, 2),
    "conv2": (ADown, 512, 512),
    "vajra_block3": (MerudandaX, 512, 1024, 512, 256, 2),
    "conv3": (ADown, 1024, 1024),
    "vajra_block4": (MerudandaX, 1024, 1024, 512, 256, 2),
    "cblinear1": (CBLinear, 64, (64,)),
    "cblinear2": (CBLinear, 256, (64, 128)),
    "cblinear3": (CBLinear, 512, (64, 128, 256)),
    "cblinear4": (CBLinear, 1024, (64, 128, 256, 512)),
    "cblinear5": (CBLinear, 1024, (64, 128, 256, 512, 1024)),
    "conv4": (ConvBNAct, 3, 64, 3, 2),
    "conv5": (ConvBNAct, 64, 128, 3, 2),
    "vajra_block5": (MerudandaX, 128, 256, 128, 64, 2),
    "conv6": (ADown, 256, 256),
    "vajra_block6": (MerudandaX, 256, 512, 256, 128, 2),
    "conv7": (ADown, 512, 512),
    "vajra_block7": (MerudandaX, 512, 1024, 512, 256, 2),
    "conv8": (ADown, 1024, 1024),
    "vajra_block8": (MerudandaX, 1024, 1024, 512, 256, 2),
    "sppf_attn": (AttentionBhag6, 1024, 512, 2),
    "vajra_neck1": (MerudandaX, 1536, 512, 512, 256, 2),
    "vajra_neck2": (MerudandaX, 1024, 256, 256, 128, 2),
    "neck_conv1": (ADown, 256, 256),
    "vajra_neck3": (MerudandaX, 768, 512, 512, 256, 2),
    "neck_conv2": (ADown, 512, 512),
    "vajra_neck4": (MerudandaX, 1024, 512, 1024, 512, 2),
}
HEAD_INPUTS = {
    "nano": (64, 128, 256),
    "small": (128, 256, 512),
    "medium": (256, 512, 512),
    "large": (256, 512, 512),
    "xlarge": (256, 512, 512),
}


def _layers(size: str) -> Mapping[str, _Layer]:
    if size == "small":
        return {**_mid(32), "vajra_block4": (MerudandaBhag15, 512, 512, 1, True, 7, True)}
    tables = {"nano": lambda: _mid(16), "medium": lambda: _wide(1, 2, 1), "large": lambda: _wide(2, 3, 2)}
    return _XLARGE if size == "xlarge" else tables[size]()


class Body(nn.Module):
    """Backbone and neck: an image in, one map a stride (8, 16, 32) out."""

    def __init__(self, size: str) -> None:
        super().__init__()
        for name, (block, *arguments) in _layers(size).items():
            self.add_module(name, block(*arguments))
        self.up = nn.Upsample(scale_factor=2.0, mode="nearest")

    def backbone(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The maps at strides 8, 16 and 32, before attention on the last."""
        v1 = self.vajra_block1(self.stem2(self.stem1(image)))
        v2 = self.vajra_block2(self.conv1(v1))
        v3 = self.vajra_block3(self.conv2(v2))
        return v2, v3, self.vajra_block4(self.conv3(v3))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        v2, v3, v4 = self.backbone(image)
        p5 = self.sppf_attn(v4)
        n1 = self.vajra_neck1(torch.cat((v3, self.up(p5)), 1))
        n2 = self.vajra_neck2(torch.cat((v2, self.up(n1)), 1))
        n3 = self.vajra_neck3(torch.cat((n1, self.neck_conv1(n2)), 1))
        n4 = self.vajra_neck4(torch.cat((p5, self.neck_conv2(n3)), 1))
        return n2, n3, n4


class CompositeBody(Body):
    """xlarge: a second backbone that takes in the first one's maps at every level."""

    def backbone(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The second backbone's maps at strides 8, 16 and 32."""
        stem = self.stem1(image)
        a1 = self.vajra_block1(self.stem2(stem))
        a2 = self.vajra_block2(self.conv1(a1))
        a3 = self.vajra_block3(self.conv2(a2))
        a4 = self.vajra_block4(self.conv3(a3))
        taps = [self.cblinear1(stem), self.cblinear2(a1), self.cblinear3(a2), self.cblinear4(a3), self.cblinear5(a4)]
        x = fuse_levels(taps, 0, self.conv4(image))
        x = fuse_levels(taps[1:], 1, self.conv5(x))
        v2 = self.vajra_block6(fuse_levels(taps[2:], 2, self.conv6(self.vajra_block5(x))))
        v3 = self.vajra_block7(fuse_levels(taps[3:], 3, self.conv7(v2)))
        return v2, v3, self.vajra_block8(fuse_levels(taps[4:], 4, self.conv8(v3)))
