"""vajra-edge: VajraV1 weights in, detections over MQTT out.

Imports point one way, from the bottom to the top; ``README.md`` beside this file tells the design on one page:

    types, errors, wording       the two values of the hot path, the exception tree, how errors are put to whoever reads
    device, durable, progress    what this machine is, files that survive a power cut, the steps of a build
    config                       what the operator asks for; which change causes which action
    datasets                     pictures and what is true of them
    weights                      a checkpoint file -> tensors -> a torch network
    graph                        a torch network or an ONNX file -> the ONNX graph that an engine is built from
    geometry, heads              letterbox and boxes; what a network's output means
    plans                        what is wanted, what was achieved, where it lies, what failed
    quantization                 calibration images, ranges, the choice of INT8 layers
    backends                     ONNX Runtime, TensorRT: graph -> plan -> runner
    build                        a request -> a checked plan in the store, in a child process
    inference                    frame -> detections, and the frame loop
    tracking                     detections of one frame after the other -> numbers that stay with their objects
    analytics                    what those objects do at zones and lines, and how often
    capture, mqtt                camera -> newest frame; detections -> broker
    telemetry                    the status document
    daemon                       state machine, supervisor, build process, control socket, systemd
    tasks, api                   export, val and predict; ``from vajra_edge import Vajra``
    cli                          what an operator types
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
