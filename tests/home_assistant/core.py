"""A real Home Assistant core with its MQTT integration: the child of ``test_core.py``, in an interpreter of its own.

``core.py FOLDER HTTP_PORT BROKER_PORT``: each line of its input is a question in JSON, each line of its output the
answer. It imports nothing of ours.
"""

import asyncio
import json
import logging
import sys
from pathlib import Path

from homeassistant import bootstrap, runner
from homeassistant.const import __version__
from homeassistant.core import callback
from homeassistant.helpers import device_registry, entity_registry

CONFIG = """homeassistant:
  name: test
http:
  server_host: 127.0.0.1
  server_port: {http}
frontend:
logger:
  default: warning
"""

DASHBOARD = """lovelace:
  dashboards:
    vajra-edge: {mode: yaml, title: vajra-edge, icon: mdi:cctv, filename: dashboard.yaml}
"""


class Said(logging.Handler):
    """Keeps what the MQTT integration warns of."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        if "mqtt" in record.name or "template" in record.name:
            self.lines.append(record.getMessage())


async def start(folder, http):
    dashboard = DASHBOARD if (folder / "dashboard.yaml").exists() else ""
    (folder / "configuration.yaml").write_text(CONFIG.format(http=http) + dashboard)
    hass = await bootstrap.async_setup_hass(runner.RuntimeConfig(config_dir=str(folder), skip_pip=True))
    await hass.async_start()
    return hass


async def add_broker(hass, port):
    """By the form that a person fills in; a later start knows the broker."""
    if hass.config_entries.async_entries("mqtt"):
        return
    flow = await hass.config_entries.flow.async_init("mqtt", context={"source": "user"})
    if flow["type"] == "menu":
        chosen = {"next_step_id": next(iter(flow["menu_options"]))}
        flow = await hass.config_entries.flow.async_configure(flow["flow_id"], chosen)
    other = {"set_client_cert": False, "set_ca_cert": "off", "transport": "tcp"}
    broker = {"broker": "127.0.0.1", "port": port, "other_settings": other}
    flow = await hass.config_entries.flow.async_configure(flow["flow_id"], broker)
    if flow["type"] != "create_entry":
        raise RuntimeError(f"the MQTT integration was not set up: {flow}")


class Changes:
    """Every state that was ever shown: what lasts for a moment is not missed by who asks now and then."""

    def __init__(self, hass):
        self.seen = []
        hass.bus.async_listen("state_changed", self.note)

    @callback
    def note(self, event):
        if (now := event.data["new_state"]) is not None:
            self.seen.append((now.entity_id, {"state": now.state, **now.attributes}))


async def answer(hass, said, changes, asked):  # noqa: PLR0911  one a question
    if asked["ask"] == "changes":
        return [state for name, state in changes.seen if name == asked["entity"]]
    if asked["ask"] == "states":
        return {one.entity_id: {"state": one.state, **one.attributes} for one in hass.states.async_all()}
    if asked["ask"] == "devices":
        known = device_registry.async_get(hass).devices
        names = {one.id: one.name for one in known}
        return {one.name: {"via": names.get(one.via_device_id), "id": one.id, "model": one.model} for one in known}
    if asked["ask"] == "registry":
        return {one.entity_id: one.unique_id for one in entity_registry.async_get(hass).entities.values()}
    if asked["ask"] == "dashboard":
        return await hass.data["lovelace"].dashboards["vajra-edge"].async_load(False)
    if asked["ask"] == "said":
        return said.lines
    await hass.services.async_call(asked["domain"], asked["ask"], asked["fields"], blocking=True)
    return True


async def main():
    folder, http, broker = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    said = Said()
    logging.getLogger().addHandler(said)
    hass = await start(folder, http)
    changes = Changes(hass)
    await add_broker(hass, broker)
    await hass.async_block_till_done()
    print(json.dumps({"version": __version__}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        told = await answer(hass, said, changes, json.loads(line))
        print(json.dumps(told, default=str), flush=True)
    await hass.async_stop(force=True)


asyncio.run(main())
