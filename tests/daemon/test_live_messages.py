"""Every message that a daemon sends is of the form that deploy/schemas tells."""

from __future__ import annotations

import json
import re
from types import ModuleType
from typing import Any

from paho.mqtt import publish
from pydantic import BaseModel, TypeAdapter
from schema_generator import generator
from station import Station
from walk import LEFT, STREET, walk


def forms(generate: ModuleType) -> dict[re.Pattern[str], TypeAdapter[Any]]:
    """Of each topic below the device's root, the messages that it may carry."""
    told = {}
    for topic, models in generate.SENT.values():
        if models:
            union: Any = models[0] if len(models) == 1 else models[0] | models[1]
            told[re.compile(re.sub(r"\{\w+\}", "[^/]+", topic.name))] = TypeAdapter(union)
    return told


def test_what_a_daemon_sends_is_what_the_schemas_say(rebooted: Station) -> None:
    rebooted.sweep()
    rebooted.camera("gate", source=str(walk(rebooted.folder / "walk")), fps=2.0, zones=[LEFT], lines=[STREET])
    rebooted.write(mqtt={"home_assistant": "device", "commands": True})
    ears = rebooted.listen()
    rebooted.start()
    ears.detections(5)
    for verb, asked in (("status", {"transaction": "a"}), ("rebuild", {"dry_run": True}), ("rebuild", {"mood": "bad"})):
        path = f"vajra/test/request/{verb}"
        publish.single(path, json.dumps(asked), hostname="127.0.0.1", port=rebooted.port)
        ears.until(lambda path, _, answer=f"response/{verb}": path == answer)
    ears.ever(lambda path, told: path.endswith("/objects") and told["total"] is not None)
    ears.ever(lambda path, told: path.endswith("/events") and told["event"] == "cross")
    rebooted.stop()
    ears.ever(lambda path, told: path == "status" and told["state"] == "stopped")
    ears.all()
    ears.close()
    known, heard = forms(generator()), set()
    for path, told, _ in [*ears.heard, *(("camera/gate/detections", gap, 0.0) for gap in ears.gaps)]:
        if path.startswith("request/"):
            continue
        (form,) = (form for form in known if form.fullmatch(path))
        parsed = known[form].validate_json(json.dumps(told))
        assert isinstance(parsed, BaseModel)
        heard.add(form.pattern)
    assert heard == {form.pattern for form in known}
