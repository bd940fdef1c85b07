"""Zones and lines of the whole daemon: told over a real broker, changed in place, kept over a kill."""

from __future__ import annotations

import signal
from typing import Any

import orjson
import pytest
from station import LIMIT_S, Ears, Station
from walk import LEFT, STREET, walk

from vajra_edge.config.settings import load
from vajra_edge.daemon.app import streams_in_use
from vajra_edge.mqtt.schema import EventMessage, PlacesMessage, TotalsMessage


@pytest.fixture
def watched(rebooted: Station) -> Station:
    """A daemon that has not been started, whose camera shows the walk again and again."""
    rebooted.sweep()
    rebooted.camera("gate", source=str(walk(rebooted.folder / "walk")), fps=2.0, zones=[LEFT], lines=[STREET])
    return rebooted


def crossed(content: dict[str, Any]) -> int:
    return sum(content["lines"][0]["crossed_in"].values()) if content["lines"] else 0


def test_numbers_are_reserved_for_the_events_of_cameras_that_have_places(watched: Station):
    watched.camera("yard", source=str(watched.folder / "walk"))
    watched.write()
    assert streams_in_use(load(watched.config)) == ("gate", "yard", "gate/events")


def test_who_walks_is_told_counted_and_gone_when_the_camera_is(watched: Station):
    ears = watched.listen()
    watched.start()
    watched.serving()
    event = ears.ever(lambda path, content: path == "camera/gate/events" and content["event"] == "cross")
    assert (event["place"], event["way"], event["class"]) == ("street", "in", "person")
    ears.ever(lambda path, content: path == "camera/gate/events" and content["event"] == "enter")
    seen = ears.ever(
        lambda path, content: (
            path == "camera/gate/detections"
            and any(found.get("track_id") == event["track_id"] for found in content["detections"])
        )
    )
    assert seen["camera"] == "gate"
    places = ears.ever(
        lambda path, content: path == "camera/gate/places" and crossed(content) and content["zones"][0]["present"]
    )
    assert places["blind"] == ""
    watched.camera("gate", enabled=False)
    watched.write()
    gone = ears.until(lambda path, content: path == "camera/gate/places" and content["blind"] == "camera")
    assert (gone["zones"][0]["present"], gone["zones"][0]["count"]) == (None, {})
    totals = ears.ever(lambda path, content: path == "camera/gate/totals" and content["hours"])
    TotalsMessage.model_validate(totals, strict=False)
    for path, content, _ in ears.all():
        if path == "camera/gate/events":
            EventMessage.model_validate(content)
        elif path == "camera/gate/places":
            PlacesMessage.model_validate(content)
    watched.camera("gate", zones=[], lines=[])
    watched.write()
    ears.until(lambda path, content: path == "camera/gate/places" and content is None)
    ears.ever(lambda path, content: path == "camera/gate/totals" and content is None)
    ears.close()


def test_a_kill_costs_no_count_that_was_kept_and_the_time_between_is_named(watched: Station):
    ears = watched.listen("camera/gate/#")
    watched.spawn()
    ears.until(lambda path, content: path == "camera/gate/places" and crossed(content))
    ears.ever(lambda *_: kept(watched))
    assert watched.process is not None
    watched.process.send_signal(signal.SIGKILL)
    watched.process.wait(LIMIT_S)
    forget(ears)
    watched.spawn()
    told = ears.until(lambda path, content: path == "camera/gate/places" and crossed(content) and not content["blind"])
    assert crossed(told) >= 1
    totals = ears.ever(
        lambda path, content: path == "camera/gate/totals" and "down" in [blind["why"] for blind in content["blind"]]
    )
    (down,) = [blind for blind in totals["blind"] if blind["why"] == "down"]
    assert down["length_s"] > 0.0
    ears.close()


def kept(station: Station) -> int:
    """Crossings that are on disk."""
    file = station.state_dir / "totals" / "gate.json"
    counts = orjson.loads(file.read_bytes())["counts"] if file.exists() else []
    return sum(count for _, what, _, count in counts if what == "in")


def forget(ears: Ears) -> None:
    """Wait for nothing that was heard before."""
    ears.all()
    ears._next = len(ears.heard)


@pytest.mark.long("twenty lives of a daemon; one kill is tried in every run, and twenty with made-up clocks")
@pytest.mark.timeout(1200)
def test_after_twenty_kills_each_crossing_is_counted_or_lies_in_an_interval_that_is_named(watched: Station):
    ears = watched.listen("camera/gate/#")
    for life in range(20):
        forget(ears)
        watched.spawn()
        ears.until(
            lambda path, told: path == "camera/gate/events" and told["event"] == "cross" and not told["replayed"]
        )
        if not life % 2:  # else what was just counted may not be written yet
            before = kept(watched)
            ears.until(lambda *_, before=before: kept(watched) > before)
        assert watched.process is not None
        watched.process.send_signal(signal.SIGKILL)
        watched.process.wait(LIMIT_S)
    forget(ears)
    watched.spawn()
    ears.until(lambda path, told: path == "camera/gate/places" and crossed(told) and not told["blind"])
    watched.stop()
    totals = ears.until(lambda path, told: path == "camera/gate/totals" and told["blind"][-1]["why"] == "down")
    crossings = {
        content["key"]: content["at"]
        for path, content, _ in ears.all()
        if path == "camera/gate/events" and content["event"] == "cross"
    }
    counted = sum(sum(hour["crossed_in"].get("street", {}).values()) for hour in totals["hours"])
    unseen = [at for at in crossings.values() if any(one["begin"] <= at <= one["end"] for one in down(totals))]
    assert counted <= len(crossings) <= counted + len(unseen)
    assert counted >= 10, "every second life was kept"
    assert len(down(totals)) >= 10
    ears.close()


def down(totals: dict[str, Any]) -> list[dict[str, Any]]:
    return [blind for blind in totals["blind"] if blind["why"] == "down"]
