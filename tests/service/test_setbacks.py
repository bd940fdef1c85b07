"""What the machine hears of a build that came to nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from vajra_edge.service.builder import BuildFailed, BuildSucceeded
from vajra_edge.service.events import BuildFailed as Ended
from vajra_edge.service.events import Job
from vajra_edge.service.overview import Known
from vajra_edge.service.phases import State
from vajra_edge.service.setbacks import weighed
from vajra_edge.service.wishing import Wishing
from vajra_edge.settings import load

KNOWN = Known(load(None, {"weights": {"path": "net.onnx"}, "engine": {"precision": "int8"}}), weights_sha256="ab" * 32)
STRICT = {"weights": {"path": "net.onnx"}, "engine": {"precision": "int8", "allow_lower_precision": False}}
ENDED = Ended(Job(3, "A"), "no", permanent=True, now_s=7.0)
IMAGES = BuildFailed(3, "no", permanent=True, peak_rss_bytes=0, images=True)
KILLED = BuildFailed(3, "no", permanent=False, peak_rss_bytes=0, killed=True)


class Asked:
    """Stands for Wishing: images are to blame, and something else may be wanted."""

    def __init__(self) -> None:
        self.doubts: list[str] = []

    def distrust_images(self, wish: object, ended: Ended) -> bool:
        del wish, ended
        return True

    def again(self, *about: object, doubt: str = "") -> None:
        del about
        self.doubts.append(doubt)


@pytest.fixture
def asked() -> Asked:
    return Asked()


def heard(asked: Asked, told: BuildSucceeded | BuildFailed, s: State | None = None, known: Known = KNOWN) -> Ended:
    return weighed(told, ENDED, s or State(), known, cast("Wishing", asked))


def test_a_failure_that_is_the_weights_own_is_heard_as_it_is(asked: Asked):
    assert heard(asked, BuildFailed(3, "truncated", permanent=True, peak_rss_bytes=0)) == ENDED
    assert asked.doubts == []


def test_images_that_are_to_blame_make_the_build_wait_for_another_wish(asked: Asked):
    assert heard(asked, IMAGES) == replace(ENDED, permanent=False)
    assert asked.doubts == ["no"]


def test_a_forced_build_fails_for_good_since_its_plan_may_be_there(asked: Asked):
    assert heard(asked, IMAGES, State(forced=True)) == ENDED


def test_only_the_second_kill_asks_for_less_memory_and_only_where_that_is_allowed(asked: Asked):
    heard(asked, KILLED)
    heard(asked, KILLED, State(attempts=1), replace(KNOWN, settings=load(None, STRICT)))
    assert asked.doubts == []
    heard(asked, KILLED, State(attempts=1))
    assert asked.doubts == ["no"]


def test_a_plan_under_another_name_has_the_wish_worked_out_again_and_no_images_blamed(asked: Asked):
    assert heard(asked, BuildSucceeded(3, "B", 0), State(forced=True)) == ENDED
    assert asked.doubts == [""]
