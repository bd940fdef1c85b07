"""Writes the tables of settings, topics, messages and figures into the pages beside this file, from the code.

``python deploy/docs/generate.py`` after a change of ``settings.py``, ``changes.py``, ``topics.py``, ``schema.py``,
``messages.py`` or ``benchmark/figures.py``; ``tests/deploy/test_docs.py`` fails until it was run. A page says where a
table goes::

    <!-- generated: settings -->
    <!-- end -->
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticUndefined

from vajra_edge.benchmark import figures as bench_figures
from vajra_edge.benchmark.figures import Figures
from vajra_edge.config.changes import ACTIONS
from vajra_edge.config.settings import CameraSettings, Settings
from vajra_edge.mqtt import figures, messages, place_messages, schema
from vajra_edge.mqtt.topics import Topic, Topics
from vajra_edge.plans.report import GateFigures

PAGES = Path(__file__).resolve().parent
BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

_TOPICS = Topics("vajra", "<device>")
PUBLISHED: tuple[tuple[Topic, type[BaseModel] | None, str], ...] = (
    (_TOPICS.detections("<id>"), schema.DetectionMessage, "one a frame that was inferred; `[mqtt] qos` sets the QoS"),
    (_TOPICS.detections("<id>"), schema.GapMessage, "in the place of messages that do not come: which, and why"),
    (_TOPICS.status, schema.ServiceMessage, "the daemon as a whole; also the last will, which says `lost`"),
    (_TOPICS.engine, schema.EngineMessage, "what serves, what is built or loaded, and why"),
    (_TOPICS.history, schema.HistoryMessage, "builds, refusals, swaps, rollbacks, strikes, crashes: the newest ten"),
    (_TOPICS.camera_status("<id>"), schema.CameraMessage, "whether a camera delivers, and why not"),
    (
        _TOPICS.events("<id>"),
        schema.EventMessage,
        "who enters, stays in, leaves a zone or crosses a line; kept as detections",
    ),
    (
        _TOPICS.places("<id>"),
        schema.PlacesMessage,
        "who is in the camera's zones now, and how many came and crossed in all",
    ),
    (_TOPICS.totals("<id>"), schema.TotalsMessage, "the same by hour, and when nobody could see"),
    (_TOPICS.objects("<id>"), schema.ObjectsMessage, "how many objects it shows; with `[mqtt] home_assistant` on"),
    (
        _TOPICS.snapshot("<id>"),
        schema.SnapshotComment,
        "a JPEG every `snapshot_every_s` or on request, with this in its comment; one that cannot be sent is not kept",
    ),
    (_TOPICS.request("<verb>"), None, "received, if `[mqtt] commands` is on: see [requests](#requests)"),
    (_TOPICS.response("<verb>"), schema.ResponseMessage, "the answer, with the caller's `transaction`"),
)
"""Every topic, its payload where that is JSON of ours, and what it says."""


def rendered(page: str) -> str:
    """The page with every generated block made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", page)


def settings_tables() -> str:
    """One table a section: every setting with its default, values, meaning, and what a change does."""
    top = {name: info for name, info in Settings.model_fields.items() if not _is_section(name, info.annotation)}
    blocks = [_settings_table("", Settings.model_json_schema()["properties"], top)]
    for name, info in Settings.model_fields.items():
        section = _section(name, info.annotation)
        if section is not None:
            lines = _settings_table(f"{name}.", section.model_json_schema()["properties"], section.model_fields)
            blocks.append(f"{_heading(section)}\n\n{lines}")
    return "\n\n".join(blocks) + "\n"


def topics_table() -> str:
    """One row a topic."""
    rows = (
        (f"`{topic.name}`", str(topic.qos), "yes" if topic.retain else "no", _link(payload), words)
        for topic, payload, words in PUBLISHED
    )
    return _table(("topic below `vajra/<device>/`", "QoS", "retained", "message", "what"), rows) + "\n"


def message_tables() -> str:
    """One table a payload, each followed by the objects that it is the first to hold."""
    payloads = (payload for _, payload, _ in PUBLISHED if payload is not None)
    told = dict.fromkeys(model for payload in payloads for model in _with_parts(payload))
    return "\n\n".join(_message_table(model) for model in told) + "\n"


def bench_tables() -> str:
    """What ``bench --json`` writes: one table a value, each followed by the objects that it is the first to hold."""
    return "\n\n".join(_message_table(model) for model in dict.fromkeys(_with_parts(Figures))) + "\n"


TABLES: Mapping[str, Callable[[], str]] = {
    "settings": settings_tables,
    "topics": topics_table,
    "messages": message_tables,
    "bench": bench_tables,
}


_PARTS: Mapping[str, type] = {
    part.__name__: part
    for part in (
        *(schema.DetectionRow, schema.EngineRow, schema.GapRow, messages.HistoryEntry, messages.CameraControls),
        *(place_messages.ZoneState, place_messages.LineState),
        *(place_messages.HourCounts, place_messages.BlindInterval),
        *(value for value in vars(bench_figures).values() if dataclasses.is_dataclass(value)),
        *(figures.Int8Figures, figures.DlaFigures, figures.Refused, GateFigures),
    )
}
"""What messages and figures hold beside plain values."""


def _is_section(name: str, annotation: object) -> bool:
    return _section(name, annotation) is not None


def _section(name: str, annotation: object) -> type[BaseModel] | None:
    if name == "cameras":
        return CameraSettings
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _heading(section: type[BaseModel]) -> str:
    """A section's docstring, which begins with its name in the file."""
    name, _, words = _plain(inspect.getdoc(section) or "").partition(": ")
    return f"### {name}\n\n{words[:1].upper()}{words[1:]}"


def _settings_table(prefix: str, properties: Mapping[str, Any], fields: Mapping[str, Any]) -> str:
    rows = (
        (
            f"`{prefix}{name}`",
            _default(info.default),
            _values(properties[name]),
            info.description,
            ACTIONS[f"{prefix}{name}"].value,
        )
        for name, info in fields.items()
    )
    return _table(("setting", "default", "values", "meaning", "a change"), rows)


def _default(value: object) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "not set"
    if value == ():
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _with_parts(model: type) -> Iterator[type]:
    """The model or record, then those of its fields, however deep."""
    yield model
    for name in re.findall(r"#/\$defs/(\w+)", str(_properties(model))):
        yield from _with_parts(_PARTS[name])


def _properties(model: type) -> dict[str, Any]:
    """The fields in JSON."""
    properties: dict[str, Any] = TypeAdapter(model).json_schema()["properties"]
    return properties


def _message_table(model: type) -> str:
    topic = next((topic.name for topic, payload, _ in PUBLISHED if payload is model), None)
    title = f"### {model.__name__}" + (f"\n\n`{topic}`" if topic else "")
    meanings, rows = schema.meanings(model), []
    for key, part in _properties(model).items():
        meaning = part.get("description") or meanings.get(key)
        if meaning is None:
            raise LookupError(f"{model.__name__}.{key} is explained nowhere")
        rows.append((f"`{key}`", _values(part), meaning))
    return f"{title}\n\n{_table(('field', 'values', 'meaning'), iter(rows))}"


def _values(part: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in part:
        unset = "default" in part and part["default"] is None  # a setting: null is said by "not set"
        choices = [choice for choice in part["anyOf"] if not (unset and choice.get("type") == "null")]
        return " or ".join(_values(choice) for choice in choices)
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        return "tables" if name.endswith("Settings") else f"[{name}](#{name.lower()})"
    if "enum" in part or "const" in part:
        return ", ".join(f"`{value}`" for value in part.get("enum", [part.get("const")]))
    return _TYPES[part["type"]](part)


def _number(part: Mapping[str, Any]) -> str:
    words = part["type"]
    for bound, preposition in (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to")):
        if bound in part:
            words += f" {preposition} {part[bound]:.10g}"
    return str(words)


def _text(part: Mapping[str, Any]) -> str:
    return {"path": "path", "date-time": "time, ISO 8601"}.get(part.get("format", ""), "text")


def _array(part: Mapping[str, Any]) -> str:
    if "prefixItems" in part:
        kind = _values(part["prefixItems"][0])
        return f"[{', '.join([kind.split()[0]] * len(part['prefixItems']))}]" + kind[len(kind.split()[0]) :]
    return f"list of {_values(part['items'])}"


def _object(part: Mapping[str, Any]) -> str:
    inner = part.get("additionalProperties")
    return f"object, each value {_values(inner)}" if isinstance(inner, Mapping) else "object"


_TYPES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "boolean": lambda _: "`true`, `false`",
    "integer": _number,
    "number": _number,
    "string": _text,
    "array": _array,
    "object": _object,
    "null": lambda _: "null",
}


def _link(payload: type[BaseModel] | None) -> str:
    return "" if payload is None else f"[{payload.__name__}](#{payload.__name__.lower()})"


def _plain(words: str) -> str:
    """A docstring's words as Markdown."""
    return " ".join(words.replace("``", "`").split())


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("|  |", "| |")


def main() -> None:
    """Write every page whose tables have changed."""
    for path in sorted(PAGES.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        if (new := rendered(page)) != page:
            path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
