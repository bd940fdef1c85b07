from __future__ import annotations

import threading

from vajra_edge.capture.camera import CameraChanged
from vajra_edge.capture.reconnect import CameraPhase
from vajra_edge.daemon.build_process import BuildProgressed, BuildSucceeded
from vajra_edge.daemon.control.callers import ReloadAsked
from vajra_edge.daemon.control.server import Asked
from vajra_edge.daemon.events import Stop
from vajra_edge.daemon.file_watcher import FileChanged
from vajra_edge.daemon.inbox import Inbox
from vajra_edge.mqtt.publisher import BrokerChanged
from vajra_edge.progress import Progress


def everything(inbox):
    heard = []
    while (item := inbox.get(0.0)) is not None:
        heard.append(item)
    return heard


def camera(name, phase):
    return CameraChanged(name, phase, "", attempts=0, retry_in_s=None)


def test_newer_news_of_the_same_thing_takes_the_place_of_the_older(tmp_path):
    inbox = Inbox()
    for number in range(1000):
        inbox.put(camera("gate", CameraPhase.OPENING))
        inbox.put(camera("yard", CameraPhase.STREAMING))
        inbox.put(BrokerChanged(connected=bool(number % 2)))
        inbox.put(BuildProgressed(1, Progress("build", float(number % 100))))
        inbox.put(FileChanged("weights", tmp_path, str(number)))
        inbox.put(ReloadAsked())
    inbox.put(camera("gate", CameraPhase.BACKOFF))
    inbox.put(BuildSucceeded(1, "f", 0))
    assert len(inbox) == 7
    assert everything(inbox) == [
        camera("gate", CameraPhase.BACKOFF),
        camera("yard", CameraPhase.STREAMING),
        BrokerChanged(connected=True),
        BuildProgressed(1, Progress("build", 99.0)),
        FileChanged("weights", tmp_path, "999"),
        ReloadAsked(),
        BuildSucceeded(1, "f", 0),
    ]


def test_what_was_asked_for_or_has_ended_is_never_merged():
    inbox = Inbox()
    told = [Stop(), Stop(), Asked(1, "status", {}), Asked(2, "status", {}), BuildSucceeded(1, "f", 0)]
    for event in told:
        inbox.put(event)
    assert everything(inbox) == told


def test_news_after_it_was_taken_waits_anew():
    inbox = Inbox()
    for connected in (True, False, True):
        inbox.put(BrokerChanged(connected))
        assert inbox.get(0.0) == BrokerChanged(connected)
    assert inbox.get(0.0) is None


def test_the_last_news_is_never_lost_however_threads_meet():
    inbox, last, threads = Inbox(), {}, []

    def put(name):
        for number in range(3000):
            inbox.put(FileChanged(name, None, f"{number}"))

    for name in ("a", "b"):
        threads.append(threading.Thread(target=put, args=(name,)))
        threads[-1].start()
    while any(thread.is_alive() for thread in threads) or len(inbox):
        if (heard := inbox.get(0.01)) is not None:
            last[heard.name] = heard.digest
    assert last == {"a": "2999", "b": "2999"}
