"""The demo's settings: an ordinary daemon's, with the packaged network and clip and a state folder of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

WEIGHTS = Path(__file__).parent / "vajra-v1-nano-cctv.onnx"
CLIP = Path(__file__).parent / "clip.mp4"
DEVICE = "demo"


def broker_settings(address: str | None, stack: ExitStack) -> dict[str, Any]:
    """``[mqtt]`` of a broker that is there, or of one that is started now and closed with ``stack``.

    Args:
        address: ``host``, ``host:port`` or ``[IPv6]:port`` of a broker of the user's own.
        stack: closes what is started.

    Raises:
        PublishError: no broker is installed, or it does not start.
    """
    if address is not None:
        # anything else goes to the settings as it is, which say what is wrong with it
        parts = re.fullmatch(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<name>[^:]+)):(?P<port>[0-9]{1,5})", address)
        return {"host": parts["v6"] or parts["name"], "port": int(parts["port"])} if parts else {"host": address}
    from vajra_edge.demo.broker import Broker

    broker = Broker()
    stack.callback(broker.close)
    host, number = broker.open()
    return {"host": host, "port": number, "protocol": broker.protocol}


def overrides(
    folder: Path, mqtt: Mapping[str, Any], *, source: str | None = None, weights: Path | None = None
) -> dict[str, Any]:
    """Settings as nested dicts.

    Args:
        folder: plans and the control socket go below it.
        mqtt: from ``broker_settings``.
        source: replaces the packaged clip.
        weights: replace the packaged network.
    """
    return {
        "device_id": DEVICE,
        "weights": {"path": str((weights or WEIGHTS).absolute())},
        "cameras": [{"id": "demo", "source": source or str(CLIP), "loop": True}],
        "mqtt": dict(mqtt),
        "store": {"state_dir": str(folder / "state")},
        "service": {"control_socket": str(folder / "control.sock")},
    }


def as_toml(settings: Mapping[str, Any]) -> str:
    """TOML of two levels of tables and lists of tables; JSON strings, numbers and booleans are TOML ones too."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items() if not _is_table(value)]
    for name, value in settings.items():
        tables = value if isinstance(value, list) else [value]
        header = f"[[{name}]]" if isinstance(value, list) else f"[{name}]"
        for table in tables if _is_table(value) else []:
            lines += ["", header, *(f"{key} = {json.dumps(item)}" for key, item in table.items())]
    return "\n".join(lines) + "\n"


def _is_table(value: object) -> bool:
    return isinstance(value, (dict, list))
