# ruff: noqa: D102  what forward computes is said on its class
"""Bodies: backbone and neck of the five networks, as tables of blocks and one walk through them.

The tables are those of the architecture facts; children are named and ordered as upstream's state_dict is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vajra_edge.weights.blocks import (
    ADown,
    AttentionBhag6,
    CBLinear,
    ConvBNAct,
    MerudandaBhag15,
    MerudandaX,
    fuse_levels,
)

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
