# ruff: noqa: D102  what forward computes is said on its class
"""VajraV1: the five detection networks, rebuilt so that upstream's state_dict fits key for key."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vajra_edge.errors import WeightsError
from vajra_edge.weights.blocks import HEAD_INPUTS, Body, CompositeBody, ConvBNAct, depthwise
from vajra_edge.weights.checkpoint import Checkpoint

STRIDES_PX = (8, 16, 32)
BINS = 16  # of the distribution of each distance, upstream's reg_max


class DistributedFocalLoss(nn.Module):
    """Mean of each distance's distribution: (N, 64, anchors) -> (N, 4, anchors) left, top, right, bottom in cells."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(BINS, 1, 1, bias=False)  # 0, 1 ... 15, as every checkpoint holds it

    def forward(self, bins: Tensor) -> Tensor:
        sides = bins.view(-1, 4, BINS, bins.shape[2])
        return self.conv(sides.transpose(1, 2).softmax(1)).squeeze(1)


class DetectHead(nn.Module):
    """Boxes and class scores from three maps: (N, 4 + classes, anchors), see ``graph.signature.Layout.RAW``.

    Args:
        channels: of the maps at strides 8, 16 and 32.
        class_count: scores an anchor.

    Attributes:
        fixed_hw: if set, input height and width are these and anchors become constants of an exported graph.
    """

    def __init__(self, channels: tuple[int, int, int], class_count: int) -> None:
        super().__init__()
        det = max(channels[0] // 4, 64, 8)
        cls = max(channels[0], min(class_count, 100))
        self.branch_det = nn.ModuleList(
            nn.Sequential(ConvBNAct(c, det, 3), ConvBNAct(det, det, 3), nn.Conv2d(det, 4 * BINS, 1)) for c in channels
        )
        self.branch_cls = nn.ModuleList(
            nn.Sequential(
                nn.Sequential(depthwise(c, 3), ConvBNAct(c, cls)),
                nn.Sequential(depthwise(cls, 3), ConvBNAct(cls, cls)),
                nn.Conv2d(cls, class_count, 1),
            )
            for c in channels
        )
        self.distributed_focal_loss = DistributedFocalLoss()
        self.class_count = class_count
        self.fixed_hw: tuple[int, int] | None = None

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        branches = zip(self.branch_det, self.branch_cls, maps, strict=True)
        levels = [_rows(torch.cat((det(x), cls(x)), 1)) for det, cls, x in branches]
        bins, scores = torch.cat(levels, 2).split([4 * BINS, self.class_count], 1)
        centres, strides = self._anchors(maps)
        left_top, right_bottom = self.distributed_focal_loss(bins).split(2, 1)
        x1y1, x2y2 = centres - left_top, centres + right_bottom
        boxes = torch.cat(((x1y1 + x2y2) / 2, x2y2 - x1y1), 1) * strides
        return torch.cat((boxes, scores.sigmoid()), 1)

    def _anchors(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Cell centres (1, 2, anchors) x, y in grid units, and strides (1, 1, anchors) in pixels."""
        if self.fixed_hw is not None:
            height, width = self.fixed_hw
            sides = [(height // stride, width // stride) for stride in STRIDES_PX]
        else:
            sides = [(x.shape[2], x.shape[3]) for x in maps]
        centres, strides = [], []
        for (height, width), stride in zip(sides, STRIDES_PX, strict=True):
            xs = torch.arange(width, dtype=torch.float32).unsqueeze(0) + 0.5
            ys = torch.arange(height, dtype=torch.float32).unsqueeze(1) + 0.5
            column, row = (xs + 0 * ys).reshape(1, -1), (ys + 0 * xs).reshape(1, -1)  # fewer graph nodes than expand
            centres.append(torch.cat((column, row)))
            strides.append(0 * column + stride)
        return torch.cat(centres, 1).unsqueeze(0), torch.cat(strides, 1).unsqueeze(0)


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H*W); only N is left open, so a graph of fixed size holds no shape arithmetic."""
    return x.view(-1, x.shape[1], x.shape[2] * x.shape[3])


class VajraV1(nn.Module):
    """An image (N, 3, H, W), RGB, 0..1, float32, H and W multiples of 32 -> (N, 4 + classes, anchors).

    Rows: cx, cy, w, h in input pixels, then class scores 0..1. Anchors: row by row at stride 8, then 16, then 32.

    Args:
        size: nano, small, medium, large or xlarge.
        class_count: number of classes.
    """

    def __init__(self, size: str, class_count: int) -> None:
        super().__init__()
        body = CompositeBody(size) if size == "xlarge" else Body(size)
        self.model = nn.Sequential(body, DetectHead(HEAD_INPUTS[size], class_count))

    @property
    def head(self) -> DetectHead:
        """The detection head."""
        return self.model[1]

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


def build(checkpoint: Checkpoint) -> VajraV1:
    """The network with the checkpoint's weights, in train form, float32, eval mode.

    Raises:
        WeightsError: keys or shapes are not those of the recognised network.
    """
    class_count = len(checkpoint.class_names)
    with torch.device("meta"):
        network = VajraV1(checkpoint.size, class_count)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    _check_fit(expected, checkpoint)
    tensors = {
        name: checkpoint.tensors[name].to(torch.int64 if name.endswith("num_batches_tracked") else torch.float32)
        for name in expected
    }
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.requires_grad_(requires_grad=False).eval()


def _check_fit(expected: Mapping[str, tuple[int, ...]], checkpoint: Checkpoint) -> None:
    found = {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items()}
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    other = [name for name in expected if name in found and found[name] != expected[name]]
    if not missing and not extra and not other:
        return
    parts = [
        f"{len(names)} {what} (first {names[0][:120]})"
        for names, what in ((missing, "missing"), (extra, "unknown"))
        if names
    ]
    parts += (
        [f"{len(other)} of another shape (first {other[0]}: {found[other[0]]}, not {expected[other[0]]})"]
        if other
        else []
    )
    raise WeightsError(
        f"weights look like VajraV1 {checkpoint.size} but their tensors do not fit it: {', '.join(parts)}",
        remedy="give an unchanged, unfused VajraV1 detection checkpoint, or an ONNX export",
        size=checkpoint.size,
    )
