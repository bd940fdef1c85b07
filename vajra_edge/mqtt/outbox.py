"""Outbox: what waits between the detector and the broker, bounded by bytes and age, each loss of it announced.

A message is offered, gets a number, is on disk, is sent, and is acknowledged or becomes part of a gap. This is the part
in memory, without a clock, a thread or a file of its own: ``outbox_writer.py`` takes batches from it to the disk and
brings back what was there. It holds the next messages to be sent; the rest of a long backlog is on disk only.

Where messages cannot be on disk (the settings say so, or the disk is damaged, full, read-only or silent) they are sent
from memory, under numbers of another epoch: no key is ever used twice. Not locked: the backlog owns the lock.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from math import inf

from vajra_edge.mqtt.gaps import HOLD_S, Gap, Gaps
from vajra_edge.mqtt.messages import Draft, Number
from vajra_edge.mqtt.outbox_values import (
    ENTRY_BYTES,
    MEMORY_BYTES,
    DeadLetter,
    DiskBatch,
    KeptIn,
    Numbering,
    OutboxBounds,
    OutboxCounts,
    Queued,
    Recovered,
    Retry,
    UnnumberedMessage,
)
from vajra_edge.mqtt.picture import Receipt

MAX_ATTEMPTS = 3
"""So often a message is sent that the broker refuses for the moment; see ``Retry``."""

AHEAD, AHEAD_BYTES = 2000, 4 * 1024**2
"""Messages of the disk that are held in memory too, to be sent next: at the most so many, and of so many bytes."""

LIVE_AGE_S = 5.0
"""A live message that could not be sent for so long is not live any more."""

_UNPLACED, _LAST = 2**62, 2**63
"""Numbers from here on are of messages that came before the disk was read, so that none is used twice."""


class Outbox:
    """Keeps messages in order until the broker has them.

    Args:
        bounds: how much may wait, and where.
        epoch: names the counts that are not those of the disk.
    """

    def __init__(self, bounds: OutboxBounds, epoch: str | None = None) -> None:
        self._bounds = bounds
        self._passing = Numbering(epoch) if epoch else Numbering()
        self._stored: Numbering | None = None
        self._disk_epoch, self._outlived_upto = "", 0
        self._is_opening = bounds.kept is KeptIn.DISK
        self._trouble = ""
        self._fresh: deque[UnnumberedMessage] = deque()
        self._committing: tuple[UnnumberedMessage, ...] = ()
        self._committing_again: list[Queued] = []
        self._committing_bytes = 0
        self._ready: deque[Queued] = deque()
        self._again: list[Queued] = []
        self._in_flight: dict[int, Queued | Gap] = {}
        self._gaps = Gaps()
        self._gaps_changed = False
        self._dead: list[DeadLetter] = []
        self._expected: tuple[str, ...] = ()
        self._reserves = False
        self._held_bytes = self._fresh_bytes = self._unread_bytes = self._unread = 0
        self._read_upto = self._written_upto = 0
        self._next_number = _UNPLACED if self._is_opening else 1
        self._next_told = -1
        self._live_from = 0
        self._is_connected = False
        self._acked = self._acked_upto = 0
        self._dropped: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()

    @property
    def is_durable(self) -> bool:
        """Whether messages go to the disk before they are sent."""
        return self._stored is not None

    @property
    def is_under_way(self) -> bool:
        """Whether something was sent that was neither taken nor refused yet."""
        return bool(self._in_flight)

    def expect(self, cameras: Sequence[str]) -> None:
        """These may give messages from now on; what is lost of them before the first is on disk is a gap too."""
        self._expected, self._reserves = tuple(cameras), True

    def offer(self, draft: Draft, now_s: float) -> Receipt:
        """Take a message; what no longer fits is dropped, oldest first."""
        receipt = Receipt()
        if self._bounds.kept is KeptIn.LIVE and not self._is_connected:
            seq = self._skip(draft.camera, 1, "live", self._passing)
            receipt.settle(Number(draft.device, self._passing.epoch, draft.camera, seq))
            return receipt
        self._fresh.append(UnnumberedMessage(draft.camera, draft, now_s, receipt))
        self._fresh_bytes += draft.size_bytes + ENTRY_BYTES
        if not (self._is_opening or self.is_durable):
            self._pass_on()
        self._trim(now_s)
        return receipt

    def take(self, now_s: float) -> Queued | tuple[int, Gap] | None:
        """The next to be sent, now in flight: a message, or a gap with its number; None when nothing waits."""
        self._trim(now_s)
        if (gap := self._gaps.take(self._head(), now_s)) is not None:
            number, self._next_told = self._next_told, self._next_told - 1
            self._in_flight[number] = gap
            return number, gap
        if not self._ready:
            return None
        entry = self._ready.popleft()
        self._in_flight[entry.number] = entry
        return entry

    def is_replay(self, entry: Queued) -> bool:
        """Whether a message was offered before the present connection came up, and so is not live any more."""
        return entry.number < self._live_from or self._outlived(entry)

    def ack(self, number: int) -> None:
        """The broker has it. A number that is not in flight is ignored: brokers repeat themselves."""
        entry = self._leave(number)
        self._acked += isinstance(entry, Queued)
        self._acked_upto = max(self._acked_upto, number if isinstance(entry, Queued) else 0)
        self._gaps_changed |= isinstance(entry, Gap)

    def refuse(
        self, number: int, now_s: float, reason: str = "refused", *, code: int = 0, retry: Retry = Retry.NEVER
    ) -> None:
        """The broker does not want it, or not now: then it goes back to its place. Gaps are always told again."""
        entry = self._leave(number)
        if isinstance(entry, Gap):
            self._gaps.put_back(entry, now_s + HOLD_S)
        elif entry is not None and (attempts := self._attempts(entry, retry)) < MAX_ATTEMPTS:
            again = replace(entry, attempts=attempts, passed_upto=self._acked_upto)
            insort(self._ready, again, key=self._turn)
            self._held_bytes += entry.size_bytes
        elif entry is not None:
            self._miss(entry, reason)
            self._dead += [DeadLetter(entry, reason, code)] if self.is_durable else []

    def connected(self) -> None:
        """From here on new messages are live; what waits was held back and is replayed."""
        self._is_connected = True
        self._live_from = self._next_number

    def disconnected(self) -> None:
        """What was in flight goes back to the front of the queue, in order, to be sent again; live messages do not."""
        self._is_connected = False
        for gap in reversed([each for each in self._in_flight.values() if isinstance(each, Gap)]):
            self._gaps.put_back(gap)
        if again := [each for each in self._in_flight.values() if isinstance(each, Queued)]:
            self._ready = deque(sorted([*again, *self._ready], key=self._turn))
        self._in_flight = {}
        while self._bounds.kept is KeptIn.LIVE and self._ready:
            self._drop_oldest("live")

    def expire(self, now_s: float) -> None:
        """Drop what became too old."""
        self._trim(now_s)

    def resize(self, bounds: OutboxBounds, now_s: float) -> None:
        """Other bounds, from the settings; where messages are kept changes with the next start."""
        self._bounds = replace(bounds, kept=self._bounds.kept)
        self._trim(now_s)

    def abandon(self) -> None:
        """The process ends: what is in its memory alone is lost, and counted; what is on disk stays there."""
        unsaved = [each for each in (*self._ready, *self._in_flight.values()) if isinstance(each, Queued)]
        on_disk = len([each for each in unsaved if self._is_placed(each)])
        lost = len(self._fresh) + len(self._committing) + len(self._again) + len(unsaved) - on_disk
        self._unread += on_disk
        self._dropped["closed"] += lost
        self._fresh.clear()
        self._again.clear()
        self._ready.clear()
        self._in_flight.clear()
        self._held_bytes = self._fresh_bytes = 0

    def counts(self) -> OutboxCounts:
        """A snapshot."""
        kept = KeptIn.MEMORY.value if self._trouble else self._bounds.kept.value
        return OutboxCounts(
            len(self._fresh) + len(self._committing) + len(self._again) + len(self._ready) + self._unread,
            len(self._in_flight),
            self._held_bytes + self._fresh_bytes + self._unread_bytes,
            self._acked,
            dict(+self._dropped),
            kept,
            self._trouble,
        )

    def __len__(self) -> int:
        """Messages that are not acknowledged yet, and gaps that are not told yet."""
        counts = self.counts()
        return counts.queued + counts.in_flight + len(self._gaps)

    # What the writer asks for, and what it tells.

    def opened(self, found: Recovered) -> None:
        """The disk was read: numbers go on where they ended, and messages go there from now on before they are sent."""
        self._stored = Numbering(found.epoch, dict(found.next_seq))
        self._is_opening, self._trouble, self._reserves = False, "", True
        done, is_same = self.done_upto(), found.epoch == self._disk_epoch
        self._disk_epoch = found.epoch
        before = [entry for entry in self._ready if self._outlived(entry)]
        others = [entry for entry in self._ready if not self._outlived(entry)]
        unsaved = [entry for entry in others if not (is_same and self._is_placed(entry))]
        self._held_bytes -= sum(entry.size_bytes for entry in others)  # what the disk has is read again
        self._fresh_bytes += sum(entry.size_bytes for entry in unsaved)
        self._next_number = max(found.last, self._read_upto) + 1
        self._again = [replace(entry, number=self._take_number()) for entry in unsaved]
        self._ready = deque(before)
        self._outlived_upto = _LAST
        self._read_upto, self._written_upto, self._acked_upto = done, 0, 0
        self._unread, self._unread_bytes = found.messages, found.size_bytes
        if self._is_connected:
            self._live_from = self._next_number
        of_others = [gap for gap in self._gaps.owed() if gap.epoch != found.epoch]
        self._gaps = Gaps()
        self._gaps.add_all((*found.gaps, *of_others))
        self._gaps_changed = bool(of_others)
        for gap in found.fresh_gaps:
            self._dropped[gap.why] += gap.last - gap.first + 1

    def failed(self, why: str) -> bool:
        """The disk does not take messages: until it does they are sent from memory, under numbers of their own.

        Returns:
            Whether that is news.
        """
        is_new = why != self._trouble
        if self.is_durable:
            self._passing, self._stored = Numbering(), None
            self._next_number = self._next_unplaced()
            self._outlived_upto = self._next_number - 1
        self._is_opening, self._trouble = False, why
        for entry in (*self._committing_again, *self._again):
            self._ready.append(replace(entry, number=self._take_number()))
            self._held_bytes += entry.size_bytes
        self._fresh.extendleft(reversed(self._committing))
        self._committing, self._committing_again, self._again, self._committing_bytes = (), [], [], 0
        self._pass_on()
        return is_new

    def collect(self) -> DiskBatch | None:
        """What is to be written; None when the disk has everything."""
        if self._stored is None:
            return None
        for camera, lost in self._lost.items():
            self._skip(camera, lost, "disk", self._stored)
        self._lost.clear()
        messages = (*self._again, *(self._number(each, self._stored) for each in self._fresh))
        upto, gaps = self.done_upto(), self._untold() if self._gaps_changed else None
        cameras = self._expected if self._reserves else ()
        if not (messages or self._dead or cameras) and gaps is None and upto == self._written_upto:
            return None
        self._committing, self._committing_again, self._committing_bytes = (
            tuple(self._fresh),
            self._again,
            self._fresh_bytes,
        )
        self._fresh.clear()
        dead, self._dead, self._gaps_changed, self._again = tuple(self._dead), [], False, []
        self._reserves = False
        return DiskBatch(messages, upto, gaps, dead, cameras)

    def committed(self, batch: DiskBatch) -> bool:
        """The disk has a batch; False where it was given up meanwhile, so that its messages do not belong there."""
        if self._stored is None:
            return False
        self._fresh_bytes -= self._committing_bytes
        for waiting, entry in zip(self._committing, batch.messages[len(self._committing_again) :], strict=True):
            waiting.settle(entry.epoch, entry.seq)
        self._committing, self._committing_again, self._committing_bytes = (), [], 0
        self._written_upto = batch.upto
        size_bytes = sum(each.size_bytes for each in batch.messages)
        if self._unread or not self._has_room(1):
            self._unread += len(batch.messages)
            self._unread_bytes += size_bytes
        elif batch.messages:
            self._ready.extend(batch.messages)
            self._held_bytes += size_bytes
            self._read_upto = batch.messages[-1].number
        return True

    def wanted(self) -> int | None:
        """After which number messages are to be read from the disk; None where enough are in memory."""
        return self._read_upto if self.is_durable and self._unread and self._has_room(2) else None

    def read(self, found: Sequence[Queued]) -> None:
        """Messages that the disk had; none: it has no more."""
        if self._stored is None:
            return
        if not found:
            self._unread = self._unread_bytes = 0
            return
        held = {*self._in_flight, *(each.number for each in self._ready if each.number >= found[0].number)}
        new = [each for each in found if each.number not in held]
        in_order = not (self._ready and new and new[0].number < self._ready[-1].number)
        self._ready = deque([*self._ready, *new] if in_order else sorted([*self._ready, *new], key=self._turn))
        self._read_upto = found[-1].number
        self._unread = max(0, self._unread - len(found))
        size_bytes = sum(each.size_bytes for each in found)
        self._unread_bytes = max(0, self._unread_bytes - size_bytes)
        self._held_bytes += sum(each.size_bytes for each in new)

    def _has_room(self, share: int) -> bool:
        return len(self._ready) < AHEAD // share and self._held_bytes < AHEAD_BYTES // share

    def _untold(self) -> tuple[Gap, ...]:
        told = (each for each in self._in_flight.values() if isinstance(each, Gap))
        return (*self._gaps.owed(), *told)

    def _is_placed(self, entry: Queued) -> bool:
        """Whether the disk has it."""
        return self._bounds.kept is KeptIn.DISK and entry.number < _UNPLACED

    def _outlived(self, entry: Queued) -> bool:
        """Whether it was under way from memory when the disk came back, which does not have it."""
        return _UNPLACED <= entry.number <= self._outlived_upto

    def _turn(self, entry: Queued) -> tuple[bool, int]:
        """Order of sending: what outlived a disk that failed was sent before all that the disk has."""
        return not self._outlived(entry), entry.number

    def _first_placed(self) -> list[int]:
        """Number of the first that waits in memory and that the disk has too; behind what outlived a failure of it."""
        return list(islice((each.number for each in self._ready if each.number < _UNPLACED), 1))

    def _next_unplaced(self) -> int:
        """Above those under way and, since a connection may have broken meanwhile, those that wait to be sent again."""
        return max((_UNPLACED, *self._in_flight, *(each.number for each in self._ready))) + 1

    def done_upto(self) -> int:
        """Every message up to this number needs the disk no more."""
        numbers = [number for number in self._in_flight if 0 < number < _UNPLACED]
        numbers += self._first_placed()
        return min(numbers) - 1 if numbers else self._read_upto

    def _head(self) -> float:
        """Number of the first message that waits."""
        if first := self._first_placed() if self.is_durable else [each.number for each in islice(self._ready, 1)]:
            return first[0]
        return self._read_upto + 1 if self._unread else inf

    def _take_number(self) -> int:
        self._next_number += 1
        return self._next_number - 1

    def _number(self, waiting: UnnumberedMessage, numbering: Numbering) -> Queued:
        seq = numbering.take(waiting.camera)
        payload = waiting.draft.numbered(numbering.epoch, seq)
        return Queued(self._take_number(), waiting.camera, numbering.epoch, seq, payload, waiting.offered_s)

    def _pass_on(self) -> None:
        """To be sent from memory."""
        for camera, lost in self._lost.items():
            self._skip(camera, lost, "disk", self._passing)
        self._lost.clear()
        for waiting in self._fresh:
            entry = self._number(waiting, self._passing)
            waiting.settle(entry.epoch, entry.seq)
            self._ready.append(entry)
            self._held_bytes += entry.size_bytes
        self._fresh.clear()
        self._fresh_bytes = 0

    def _skip(self, camera: str, count: int, why: str, numbering: Numbering) -> int:
        """Messages that are lost before they have a number; returns that of the first."""
        first = numbering.take(camera)
        numbering.next_seq[camera] = first + count
        self._gaps.add(Gap(camera, numbering.epoch, first, first + count - 1, why, self._next_number))
        self._dropped[why] += count
        self._gaps_changed = True
        return first

    def _miss(self, entry: Queued, why: str) -> None:
        self._gaps.add(Gap(entry.camera, entry.epoch, entry.seq, entry.seq, why, entry.number))
        self._dropped[why] += 1
        self._gaps_changed = True

    def _attempts(self, entry: Queued, retry: Retry) -> int:
        """How many a message has used up now that it is refused."""
        if retry is Retry.NEVER:
            return MAX_ATTEMPTS
        passed = self._acked_upto > max(entry.number, entry.passed_upto)
        return entry.attempts + (retry is Retry.BOUNDED or passed)

    def _leave(self, number: int) -> Queued | Gap | None:
        entry = self._in_flight.pop(number, None)
        if isinstance(entry, Queued):
            self._held_bytes -= entry.size_bytes
        return entry

    def _trim(self, now_s: float) -> None:
        live = self._bounds.kept is KeptIn.LIVE
        oldest_s = now_s - (LIVE_AGE_S if live else self._bounds.max_age_s)
        while self._ready and self._ready[0].offered_s < oldest_s:
            self._drop_oldest("live" if live else "age")
        while self._ready and self._is_full():
            self._drop_oldest("live" if live else "bytes")
        while self._fresh and self._fresh_bytes > MEMORY_BYTES:
            waiting = self._fresh.popleft()
            self._fresh_bytes -= waiting.draft.size_bytes + ENTRY_BYTES
            self._lost[waiting.camera] += 1
            waiting.receipt.settle(None)

    def _is_full(self) -> bool:
        if self._bounds.kept is KeptIn.DISK and not self.is_durable and self._held_bytes > MEMORY_BYTES:
            return True
        return self._held_bytes + self._fresh_bytes + self._unread_bytes > self._bounds.max_bytes

    def _drop_oldest(self, reason: str) -> None:
        entry = self._ready.popleft()
        self._held_bytes -= entry.size_bytes
        self._miss(entry, reason)
