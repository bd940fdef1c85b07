"""Request gate: what came over MQTT is let in once it is of now, signed as the settings ask, and asked for once.

Called by the supervisor alone. A signature is checked in the background, for keys lie on a disk; a request that is
refused hears why at once, with what another try needs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vajra_edge import clock
from vajra_edge.admission import Bucket, RequestPace
from vajra_edge.bundles.keyring import Keyring
from vajra_edge.clock import Moment
from vajra_edge.config.settings import Settings
from vajra_edge.daemon.control.callers import MqttCaller
from vajra_edge.errors import BundleError, PublishError, VajraError
from vajra_edge.mqtt.commands import Requested, SignedText
from vajra_edge.mqtt.freshness import Freshness
from vajra_edge.mqtt.publisher import Publisher
from vajra_edge.wording import Setting, say

log = logging.getLogger(__name__)

LINES = RequestPace(1 / 60.0, 10.0)
"""Refusals in the log: whoever is refused has the answer, and must not fill it."""


@dataclass(frozen=True)
class SignatureChecked:
    """Event: somebody looked at who signed a request.

    Attributes:
        request: with a signature.
        key: name of the trusted key that made it; empty where none did.
        refusal: why it is not taken; None where it is.
    """

    request: Requested
    key: str = ""
    refusal: VajraError | None = None


class RequestGate:
    """See the module.

    Args:
        publisher: answers.
        do: puts a task behind the others of the background thread; its event is posted.
        now: this moment.
    """

    def __init__(
        self,
        publisher: Publisher,
        do: Callable[[str, Callable[[], SignatureChecked]], None],
        now: Callable[[], Moment] = clock.now,
    ) -> None:
        self._publisher, self._do = publisher, do
        self._freshness = Freshness(now)
        self._lines = Bucket(LINES, time.monotonic())
        self.refused = 0

    def take(self, request: Requested, settings: Settings) -> MqttCaller | None:
        """Let a request in; None where it was refused, or its signature is being looked at."""
        try:
            self._freshness.require_now(request)
            if (signed := request.signed) is not None:
                keys = settings.weights.keys
                self._do("check who signed a request", lambda: _checked(request, signed, keys))
                return None
            if settings.mqtt.signed_commands:
                key = f"sign it with a key of {settings.weights.keys}, or "
                remedy = say(key, Setting.MQTT_SIGNED_COMMANDS.to(False))
                raise PublishError(f"request {request.verb} is not signed", remedy=remedy)
            return self._first(request, "")
        except VajraError as error:
            self._refuse(request, error)
            return None

    def checked(self, event: SignatureChecked) -> MqttCaller | None:
        """Let a signed request in; None where it was refused."""
        try:
            if event.refusal is not None:
                raise event.refusal
            return self._first(event.request, event.key)
        except VajraError as error:
            self._refuse(event.request, error)
            return None

    def _first(self, request: Requested, key: str) -> MqttCaller:
        self._freshness.require_first(request)
        return MqttCaller(self._publisher, request, key)

    def _refuse(self, request: Requested, error: VajraError) -> None:
        self.refused += 1
        if self._lines.take(time.monotonic()):
            log.warning("refused over MQTT: %s", error)
        self._publisher.respond(request, self._freshness.told(), str(error))


def _checked(request: Requested, signed: SignedText, keys: Path) -> SignatureChecked:
    """In the background thread."""
    try:
        return SignatureChecked(request, Keyring.load(keys).verify(signed.content, signed.signature).name)
    except BundleError as error:
        refusal = BundleError(f"request {request.verb} is refused: {error.message}", remedy=error.remedy)
        return SignatureChecked(request, refusal=refusal)
