"""Sources of our kernels, which lie beside this module as CUDA C."""

from __future__ import annotations

from importlib import resources

COMMON = "bits.cu"
KERNELS = {
    "letterbox": ("letterbox_f32", "letterbox_f16"),
    "detections": (
        "candidates_f32",
        "candidates_f16",
        "ranked_f32",
        "ranked_f16",
        "overlaps",
        "kept",
    ),
}
"""Source -> its kernels."""


def source(name: str) -> str:
    """One of ``KERNELS``, whole: with what it builds on."""
    return text(COMMON) + text(f"{name}.cu")


def text(file: str) -> str:
    """One file as it is."""
    return (resources.files(__package__) / file).read_text(encoding="utf-8")
