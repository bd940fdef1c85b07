"""vajra-edge: VajraV1 weights in, detections over MQTT out.

Imports point one way, and each package says what it holds:

    errors, frames, detections   the exception tree and the two value types of the hot path
    settings                     what the operator asks for; which change causes which action
    device                       what this machine is
    weights                      a checkpoint file -> tensors -> a torch network
    graph                        a torch network or an ONNX file -> the ONNX graph that an engine is built from
    geometry                     letterbox, decode, boxes: pure array functions
    engine                       graph -> plan -> runner: build, store, verify, run
    detect                       frame -> detections
    capture                      camera -> newest frame
    publish                      detections -> MQTT
    pipeline                     where capture, detect and publish meet
    service                      the daemon: states, supervisor, build child, control socket, systemd
    commands                     what an operator types
    offline                      export, val and predict on a desk
    api                          what a Python user types: ``from vajra_edge import Vajra``
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vajra_edge.version import VERSION

if TYPE_CHECKING:
    from vajra_edge.api import Vajra as Vajra

__version__ = VERSION


def __getattr__(name: str) -> object:
    """``Vajra``, loaded when it is asked for: the daemon never does."""
    if name == "Vajra":
        from vajra_edge.api import Vajra

        return Vajra
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
