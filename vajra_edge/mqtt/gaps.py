"""Gaps: messages of a camera that do not come, until the broker has been told of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

HOLD_S = 30.0
"""A gap that the broker did not want is told again after so long; it may have grown by then."""

MOST_A_CAMERA = 64
"""Beyond so many that wait, two become one: it then covers what lies between them too."""


@dataclass(frozen=True)
class Gap:
    """Messages of one camera that follow each other and do not come.

    Attributes:
        camera: the camera's id.
        epoch: names their count.
        first: ``seq`` of the first.
        last: ``seq`` of the last.
        why: see ``schema.GapRow``.
        place: number in the outbox of the message that it stands for: it is told in their order.
    """

    camera: str
    epoch: str
    first: int
    last: int
    why: str
    place: int


class Gaps:
    """Those that nobody was told of yet. Not locked: the backlog owns the lock."""

    def __init__(self) -> None:
        self._owed: dict[tuple[str, str], list[Gap]] = {}
        self._held: dict[tuple[str, str], float] = {}
        self._next: Gap | None = None

    def add(self, new: Gap) -> None:
        """One more; what goes on with the gap before it makes that longer."""
        known = self._owed.setdefault((new.epoch, new.camera), [])
        before = known[-1] if known else None
        if before is not None and before.last + 1 == new.first and before.why == new.why:
            known[-1] = replace(before, last=new.last)
        elif before is not None and before.first <= new.first and len(known) >= MOST_A_CAMERA:
            why = new.why if before.why == new.why else "several"
            known[-1] = replace(before, last=max(before.last, new.last), why=why)
        else:
            known.append(new)
        if self._next is None or new.place < self._next.place or before is self._next:
            self._find_next()

    def add_all(self, gaps: Iterable[Gap]) -> None:
        """Several, as they were read from the disk."""
        for gap in gaps:
            self.add(gap)

    def take(self, head: float, now_s: float) -> Gap | None:
        """The next one to be told, unless a message before it waits.

        Args:
            head: number of the first message that waits; infinite where none does.
            now_s: monotonic seconds.
        """
        if self._next is None:
            return None
        if self._held:
            self._held = {key: until_s for key, until_s in self._held.items() if now_s < until_s}
            self._find_next()
        gap = self._next
        if gap is None or gap.place > head or (gap.epoch, gap.camera) in self._held:
            return None
        known = self._owed[gap.epoch, gap.camera]
        known.remove(gap)
        if not known:
            del self._owed[gap.epoch, gap.camera]
        self._find_next()
        return gap

    def put_back(self, gap: Gap, until_s: float | None = None) -> None:
        """The broker did not get it: it is told again, with what came to it since; later where it was refused."""
        key = gap.epoch, gap.camera
        if until_s is not None:
            self._held[key] = until_s
        known = self._owed.setdefault(key, [])
        if known and gap.last + 1 == known[0].first and gap.why == known[0].why:
            known[0] = replace(known[0], first=gap.first, place=gap.place)
        else:
            known.insert(0, gap)
        self._find_next()

    def owed(self) -> tuple[Gap, ...]:
        """All of them."""
        return tuple(gap for known in self._owed.values() for gap in known)

    def __len__(self) -> int:
        """How many wait."""
        return sum(map(len, self._owed.values()))

    def _find_next(self) -> None:
        told = [gap for key, known in self._owed.items() if key not in self._held for gap in known]
        self._next = min(told or self.owed(), key=lambda gap: gap.place, default=None)
