"""Writes JSON Schemas and an AsyncAPI 3 document of all topics beside this file, from the code that defines them.

``python deploy/schemas/generate.py`` after a change of ``schema.py``, ``topics.py`` or the figures of ``bench``;
``tests/deploy/test_schemas.py`` fails until it was run. One schema a message, ``<Message>.json``, and
``asyncapi.yaml``, which refers to them; ``BenchFigures.json`` is of what ``bench --json`` writes.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from vajra_edge.benchmark import files as bench_files
from vajra_edge.mqtt import schema
from vajra_edge.mqtt.messages import SCHEMA
from vajra_edge.mqtt.topics import Topic, Topics
from vajra_edge.version import VERSION

FOLDER = Path(__file__).resolve().parent
DIALECT = "http://json-schema.org/draft-07/schema#"
"""The one that AsyncAPI asks every tool to know."""

FORMAT = "application/schema+json;version=draft-07"

_TOPICS = Topics("{root}", "{device}")
PARAMETERS = {
    "root": "`[mqtt] root`, `vajra` where it is not set",
    "device": "`device_id`",
    "camera": "the camera's id",
    "verb": "what is asked",
}
SENT: Mapping[str, tuple[Topic, tuple[type[BaseModel], ...]]] = {
    "detections": (_TOPICS.detections("{camera}"), (schema.DetectionMessage, schema.GapMessage)),
    "status": (_TOPICS.status, (schema.ServiceMessage,)),
    "engine": (_TOPICS.engine, (schema.EngineMessage,)),
    "history": (_TOPICS.history, (schema.HistoryMessage,)),
    "cameraStatus": (_TOPICS.camera_status("{camera}"), (schema.CameraMessage,)),
    "objects": (_TOPICS.objects("{camera}"), (schema.ObjectsMessage,)),
    "events": (_TOPICS.events("{camera}"), (schema.EventMessage, schema.GapMessage)),
    "places": (_TOPICS.places("{camera}"), (schema.PlacesMessage,)),
    "totals": (_TOPICS.totals("{camera}"), (schema.TotalsMessage,)),
    "snapshot": (_TOPICS.snapshot("{camera}"), ()),
    "response": (_TOPICS.response("{verb}"), (schema.ResponseMessage,)),
}
"""Each topic that the device publishes, and its messages; a snapshot is a JPEG."""


def schemas() -> dict[str, dict[str, Any]]:
    """Of every message, by its name."""
    models = (model for _, messages in SENT.values() for model in messages)
    return {model.__name__: {"$schema": DIALECT, **_in_draft_07(model.model_json_schema())} for model in models}


def _in_draft_07(part: Any) -> Any:
    """What pydantic writes is of 2020-12: there an array that is a tuple has other words."""
    if isinstance(part, list):
        return [_in_draft_07(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {"items" if name == "prefixItems" else name: _in_draft_07(one) for name, one in part.items()}


def asyncapi() -> dict[str, Any]:
    """The whole document."""
    channels = {name: _channel(topic, dict(_messages(models))) for name, (topic, models) in SENT.items()}
    channels["request"] = _channel(_TOPICS.request("{verb}"), {"Request": _REQUEST})
    operations = {f"send_{name}": _operation("send", name, topic.qos, topic) for name, (topic, _) in SENT.items()}
    operations["receive_request"] = _operation("receive", "request", 1, None)
    title = "What a vajra-edge device publishes, and what it may be asked"
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": VERSION, "description": f"Messages of schema {SCHEMA}."},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
    }


_REQUEST = {
    "contentType": "application/json",
    "payload": {
        "schemaFormat": FORMAT,
        "schema": {
            "type": "object",
            "properties": {
                "transaction": {"type": "string", "maxLength": 256, "description": "echoed by the answer; used once"},
                "at": {"type": "string", "format": "date-time", "description": "when it is asked"},
                "challenge": {"type": "string", "description": "of a refusal, in the place of at"},
            },
        },
    },
}
_JPEG = {"contentType": "image/jpeg", "payload": {"type": "string", "format": "binary"}}


def _channel(topic: Topic, messages: Mapping[str, Any]) -> dict[str, Any]:
    address = _TOPICS.path(topic)
    used = {name: {"description": words} for name, words in PARAMETERS.items() if f"{{{name}}}" in address}
    return {"address": address, "messages": dict(messages), "parameters": used}


def _messages(models: tuple[type[BaseModel], ...]) -> Iterator[tuple[str, Any]]:
    if not models:
        yield "Snapshot", _JPEG
    for model in models:
        payload = {
            "schemaFormat": FORMAT,
            "schema": {"$ref": f"./{model.__name__}.json"},
        }
        words = " ".join((inspect.getdoc(model) or "").split()).replace("``", "`")
        yield model.__name__, {"summary": words, "contentType": "application/json", "payload": payload}


def _operation(action: str, channel: str, qos: int, topic: Topic | None) -> dict[str, Any]:
    retained = {} if topic is None else {"retain": topic.retain}
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "bindings": {"mqtt": {"qos": qos, **retained, "bindingVersion": "0.2.0"}},
    }


def files() -> dict[str, str]:
    """Every file's content, by its name."""
    told = {f"{name}.json": json.dumps(one, indent=2, ensure_ascii=False) + "\n" for name, one in schemas().items()}
    bench = {"$schema": DIALECT, **_in_draft_07(bench_files.json_schema())}
    told["BenchFigures.json"] = json.dumps(bench, indent=2, ensure_ascii=False) + "\n"
    told["asyncapi.yaml"] = yaml.safe_dump(asyncapi(), sort_keys=False, allow_unicode=True, width=120)
    return told


def main() -> None:
    """Write every file."""
    for name, content in files().items():
        (FOLDER / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
