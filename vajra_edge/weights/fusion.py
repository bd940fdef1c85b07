"""Fusion: the deploy form of a network: batch norms and parallel branches become one convolution each, in float32."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import pad

from vajra_edge.weights.blocks import ConvBNAct, RepVGG, RepVGGDW


def fuse(network: nn.Module) -> None:
    """Put every block below ``network``, which holds float32 and is in eval mode, into deploy form, in place."""
    for name, child in network.named_children():
        setattr(network, name, _deploy(child))


def _deploy(block: nn.Module) -> nn.Module:
    if isinstance(block, ConvBNAct):
        return nn.Sequential(fold(block), block.activation)
    if isinstance(block, RepVGG):
        return nn.Sequential(_merge(fold(block.conv1), fold(block.conv2)), block.activation)
    if isinstance(block, RepVGGDW):
        return nn.Sequential(_merge(fold(block.conv), fold(block.conv1)), block.activation)
    fuse(block)
    return block


def fold(block: ConvBNAct) -> nn.Conv2d:
    """Batch norm as part of its convolution: with t = gamma / sqrt(var + eps), weight * t and bias beta - mean * t."""
    conv, bn = block.conv, block.bn
    t = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    return _conv(conv, conv.weight * t.view(-1, 1, 1, 1), bn.bias - bn.running_mean * t)


def _merge(large: nn.Conv2d, small: nn.Conv2d) -> nn.Conv2d:
    """Two convolutions of one input, summed: the smaller kernel is padded with zeros to the larger one."""
    margin = (large.kernel_size[0] - small.kernel_size[0]) // 2
    return _conv(large, large.weight + pad(small.weight, [margin] * 4), large.bias + small.bias)


def _conv(like: nn.Conv2d, weight: torch.Tensor, bias: torch.Tensor) -> nn.Conv2d:
    fused = nn.Conv2d(
        like.in_channels,
        like.out_channels,
        like.kernel_size,
        like.stride,
        like.padding,
        groups=like.groups,
        device="meta",
    )
    fused.weight = nn.Parameter(weight.detach(), requires_grad=False)
    fused.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return fused
