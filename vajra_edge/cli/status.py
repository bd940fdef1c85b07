"""``status``: what the running daemon says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vajra_edge.cli.terminal import inert_document
from vajra_edge.daemon.control.client import ask
from vajra_edge.daemon.refused_start import to_ask
from vajra_edge.errors import ControlError
from vajra_edge.privileges import become_service_user

GOOD = {"serving", "streaming", "ended"}

SHOWN_FAILURES = 5
"""The newest; ``--json`` has them all."""

SHOWN_CHARS = 80
"""Of a value that was changed; ``--json`` has all of it."""

_GATE = {
    "recall": "recall {:.3f}",
    "precision": "precision {:.3f}",
    "mean_iou": "mean IoU {:.3f}",
    "score_drift": "score drift {:.4f}",
    "reference_boxes": "{} reference boxes",
    "frames": "{} frames",
}
_DROPPED = {
    "bytes": "dropped, as the outbox was full",
    "age": "dropped, as they were too old",
    "refused": "refused by the broker",
    "too_large": "too large for the broker",
    "live": "not sent, as only live ones are",
    "died": "lost at the end of the last process, at the most",
    "disk": "lost or numbered anew, as the disk failed",
    "moved": "of another device_id",
}
_LATENCY = {"latency_p50_ms": "p50 {:.2f} ms", "latency_p99_ms": "p99 {:.2f} ms"}
_INT8 = {
    "macs_share": "{:.1%} of multiply-adds",
    "layers": "{} layers",
    "layers_kept": "{} kept higher",
    "score_drift": "score drift {:.4f}",
    "box_drift": "box drift {:.4f}",
}
_DLA = {"macs_share": "{:.1%} of multiply-adds", "transitions": "{} transitions", "loadables": "{} loadables"}


def status(config: Path, *, as_json: bool) -> int:
    """Ask over the control socket and print.

    Returns:
        0 while the daemon serves, 1 otherwise.

    Raises:
        ControlError: no daemon answers.
        SettingsError: nor could one be started, with these settings.
    """
    settings, refused = to_ask(config.absolute())
    become_service_user(settings.store.state_dir)
    try:
        document = document_of(settings.service.control_socket)
    except ControlError:
        if refused is not None:
            raise refused from None
        raise
    if as_json:
        print(orjson.dumps(document).decode())  # noqa: T201
    else:
        Console().print(_table(inert_document(document)))
    return int(document["phase"] != "serving")


def document_of(socket: Path) -> dict[str, Any]:
    """The status document of the daemon behind ``socket``, see ``telemetry.status.Status``."""
    replies = list(ask(socket, {"verb": "status"}))
    document: dict[str, Any] = replies[-1]["status"]
    return document


def _table(document: dict[str, Any]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    for _ in range(2):
        table.add_column(overflow="fold")  # a path that is cut short is of no use
    for name, text in _rows(document):
        table.add_row(f"[bold]{escape(name)}[/]", text)
    return table


def _rows(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    phase, reason = document["phase"], document["reason"]
    yield "service", _coloured(phase) + (f": {escape(reason)}" if reason else "")
    if document["before"]:
        yield "before", escape(document["before"])
    if not document["clock_synchronised"]:
        yield "clock", "[yellow]not synchronised:[/] times may be wrong; start timesyncd, chrony or the like"
    yield from _engine_rows(document["engine"])
    for camera in document["cameras"]:
        text = f"{_coloured(camera['state'])}, {camera['fps']} frames/s, {camera['published']} published"
        text += f", {camera['dropped']} dropped, {camera['losses']} losses"
        yield f"camera {camera['id']}", text + (f"; {escape(camera['reason'])}" if camera["reason"] else "")
    for stuck in document["stuck"]:
        process = f"process {stuck['pid']} of" if stuck["pid"] else "a process of"
        yield (
            "stuck",
            f"[red]{process} camera {escape(stuck['camera'])} cannot be ended[/]: a hung disk or driver holds it",
        )
    yield from _broker_rows(document["broker"])
    pipeline = document["pipeline"]
    if pipeline.get("inference_ms"):
        ages = f"frame age p50 {pipeline['age_p50_ms']:.0f} ms, p99 {pipeline['age_p99_ms']:.0f} ms"
        stages = (f"{pipeline[f'{name}_ms']:.1f} ms {name}" for name in ("prepare", "inference", "decode"))
        yield "per batch", f"{', '.join(stages)}; {ages}"
    settings = document["settings"]
    if settings["error"]:
        yield "settings", f"[red]not taken:[/] {escape(settings['error'])}"
    if settings["warning"]:
        yield "settings", f"[yellow]{escape(settings['warning'])}[/]"
    if settings["restart"]:
        yield "settings", f"[yellow]wait for a restart:[/] {escape(', '.join(settings['restart']))}"
    for override in settings["overrides"]:
        yield "changed", _override(override)


def _override(told: dict[str, Any]) -> str:
    """A change in a line, like ``detect.confidence = 0.4 (file: 0.3), by user pi, process 7, 2026-11-28 09:00 UTC``."""
    beneath = f" ({told['origin']}: {_json(told['beneath'])})" if told["origin"] else ""
    unsure = "" if told["clock_synchronised"] else " (clock not set)"
    at = told["at"].replace("+00:00", " UTC").replace("T", " ")
    text = escape(f"{told['setting']} = {_json(told['value'])}{beneath}, by {told['by']}, {at}{unsure}")
    return text + (f"; [yellow]of no effect:[/] {escape(told['idle'])}" if told["idle"] else "")


def _json(value: object) -> str:
    """A value for people; of a long one its beginning."""
    text = "unset" if value is None else orjson.dumps(value).decode()
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


def _broker_rows(broker: dict[str, Any]) -> Iterator[tuple[str, str]]:
    connected = "[red]not connected[/]"
    if broker["connected"]:
        connected = f"[green]connected[/], MQTT {broker['protocol']}"
        connected += ", which cannot say whether a message was refused" if broker["protocol"] == "3.1.1" else ""
    yield f"broker {broker['address']}", connected + (f": {escape(broker['reason'])}" if broker["reason"] else "")
    for trouble in broker["troubles"]:
        yield "broker", f"[yellow]{escape(trouble)}[/]"
    outbox = broker["outbox"]
    if outbox.get("kept"):
        where = {"disk": "on disk", "memory": "in memory", "live": "nowhere: only live ones are sent"}[outbox["kept"]]
        yield "outbox", f"{outbox['queued']} messages wait; kept {where}"
    dropped = {reason: count for reason, count in broker["outbox"].get("dropped", {}).items() if count}
    if dropped:
        told = ", ".join(f"{count} {_DROPPED.get(reason, reason)}" for reason, count in dropped.items())
        yield "messages", f"[yellow]{told}[/] since the start"


def _engine_rows(engine: dict[str, Any]) -> Iterator[tuple[str, str]]:
    serving = engine["serving"]
    if serving is not None:
        height, width = serving["resolution_hw"]
        wanted = (
            "" if serving["precision"] == serving["wanted_precision"] else f" (wanted {serving['wanted_precision']})"
        )
        text = f"{serving['fingerprint'][:12]}, {serving['precision']}{wanted} on {serving['target']}, {width}x{height}"
        yield "engine", f"{text}, {serving['backend']}, weights {escape(serving['weights'])}"
        yield from _figure_rows(serving)
        for refused in serving["rejected"]:
            yield "refused", f"[yellow]{escape(refused)}[/]"
    if engine["backend_reason"]:
        yield "backend", escape(engine["backend_reason"])
    if engine["calibration"]:
        yield "calibration", escape(engine["calibration"])
    building = engine["building"]
    if building is not None:
        eta = f", {building['eta_s']:.0f} s left" if building["eta_s"] is not None else ""
        yield "building", f"{building['fingerprint'][:12]} {building['percent']:.0f}% ({building['stage']}{eta})"
    if engine["loading"]:
        yield "loading", engine["loading"][:12]
    if (building is not None or engine["loading"]) and engine["why"]:
        yield "why", escape("; ".join(engine["why"]))
    if engine["last_error"]:
        retry = f"; next try in {engine['retry_in_s']:.0f} s" if engine["retry_in_s"] is not None else ""
        yield "last error", f"[red]{escape(engine['last_error'])}[/]{retry}"
    for failure in engine["failures"][-SHOWN_FAILURES:]:
        yield "failed", _failure(failure)


def _failure(failure: dict[str, Any]) -> str:
    """One plan's failure in a line, like ``3f9a… build, 2 times, 2026-11-27 10:02: reason; tried again``."""
    times = f", {len(failure['at'])} times" if len(failure["at"]) > 1 else ""
    at = f", {failure['at'][-1].replace('+00:00', ' UTC')}" if failure["at"] else ""
    again = f" at {failure['retry_at'].replace('+00:00', ' UTC')}" if failure["retry_at"] else ""
    unsure = "" if failure["clock_synchronised"] or not at else " (clock not set)"
    head = f"{failure['fingerprint'][:12]} {failure['cause']}{times}{at}{unsure}"
    return f"{head}: {escape(failure['reason'])}; {failure['follows']}{again}"


def _figure_rows(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What the accuracy check, calibration and placement of the serving plan measured."""
    if verify := plan["verify"]:
        source = f" of {verify['source']}" if verify["source"] else ""
        parts = verify["reason"], _few(_GATE, verify) + source, _few(_LATENCY, verify)
        yield "gate", escape("; ".join(filter(None, parts)))
    if int8 := plan["int8"]:
        ranges = f"ranges {int8['ranges']}: {int8['algorithm']} of {int8['images']} images of {int8['images_from']}"
        measured = f", by {int8['collector']}" if int8["collector"] else ""
        yield "int8", escape("; ".join(filter(None, (_few(_INT8, int8), ranges + measured))))
    if dla := plan["dla"]:
        yield "dla", f"{_few(_DLA, dla)}, {dla['nodes_on_dla']} of {dla['nodes']} nodes"
        for reason, nodes in dla["left_on_gpu"].items():
            yield "on the GPU", f"{nodes} nodes: {escape(reason)}"


def _few(words: Mapping[str, str], figures: Mapping[str, Any]) -> str:
    """Those figures that were measured, in words."""
    return ", ".join(text.format(figures[name]) for name, text in words.items() if figures.get(name) is not None)


def _coloured(state: str) -> str:
    return f"[{'green' if state in GOOD else 'yellow' if state in {'preparing', 'opening'} else 'red'}]{state}[/]"
