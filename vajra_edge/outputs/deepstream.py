"""DeepStream: one message a frame in the minimal schema of NVIDIA's Gst-nvmsgconv.

``TRACK|LEFT|TOP|RIGHT|BOTTOM|CLASS|#|`` and six attributes of a second network, which nobody has here, then the
confidence.
"""

from __future__ import annotations

from datetime import datetime, timezone

import orjson

from vajra_edge.outputs.sighted import Sighted, Sighting
from vajra_edge.tracking.tracker import NO_TRACK

VERSION = "4.0"
"""Of the schema."""

UNTRACKED = 2**64 - 1
"""DeepStream's own number of an object that no tracker knows (``UNTRACKED_OBJECT_ID``)."""

_NO_ATTRIBUTES = "#||||||"


def encode(frame: Sighted) -> bytes:
    """The payload; a frame in which nothing was found has no objects."""
    at = datetime.fromtimestamp(frame.unix_s, timezone.utc)
    return orjson.dumps(
        {
            "version": VERSION,
            "id": str(frame.seq),
            "@timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "sensorId": frame.camera,
            "objects": [_object(one) for one in frame.objects],
        }
    )


def _object(one: Sighting) -> str:
    """Numbers have six digits, as those that a C++ stream writes; a bar in a name would be read as the next field."""
    track = UNTRACKED if one.track is None or one.track == NO_TRACK else one.track
    corners = "|".join(f"{side:.6g}" for side in one.xyxy)
    return f"{track}|{corners}|{one.label.replace('|', '/')}|{_NO_ATTRIBUTES}|{one.score:.6g}"
