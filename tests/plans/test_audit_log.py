from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest
from odd_files import ODD_FILES, put

from vajra_edge.errors import StoreError
from vajra_edge.plans import audit_log
from vajra_edge.plans.audit_log import NAME, AuditEntry, AuditLog, Happened


def written(root: Path, count: int) -> list[AuditEntry]:
    log = AuditLog(root)
    return [
        log.append(AuditEntry(Happened.BUILT, f"{n:064x}", f"reason {n}", "test", 1.5, {"a_ms": n}))
        for n in range(count)
    ]


def numbers(root: Path) -> list[int]:
    return [one.number for one in AuditLog(root).read().entries]


def test_entries_come_back_as_they_were_written_numbered_and_timed(tmp_path):
    assert AuditLog(tmp_path).read() == audit_log.Read(())
    told = written(tmp_path, 3)
    assert [one.number for one in told] == [1, 2, 3]
    read = AuditLog(tmp_path).read()
    assert not read.doubts
    assert [(one.number, one.reason, one.figures) for one in read.entries] == [
        (n + 1, f"reason {n}", {"a_ms": float(n)}) for n in range(3)
    ]
    assert all(one.at is not None for one in read.entries)


@pytest.mark.parametrize("cut", [1, 7, 60])
def test_a_line_that_a_power_cut_tore_is_told_and_the_next_one_follows_the_whole_ones(tmp_path, cut):
    written(tmp_path, 3)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-cut])
    torn = AuditLog(tmp_path).read()
    assert [one.number for one in torn.entries] == [1, 2]
    assert torn.doubts == ("its last line was torn by a power cut",)
    assert written(tmp_path, 1)[0].number == 3
    assert AuditLog(tmp_path).read().doubts == ()


def test_a_changed_added_or_missing_line_is_noticed_and_not_believed(tmp_path):
    written(tmp_path, 4)
    path = tmp_path / NAME
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], lines[1].replace(b"reason 1", b"reason 9"), *lines[2:]]) + b"\n")
    changed = AuditLog(tmp_path).read()
    assert [one.number for one in changed.entries] == [1, 3, 4]
    assert "line 2 was not written by this device" in changed.doubts
    path.write_bytes(b"\n".join([lines[0], *lines[2:]]) + b"\n")
    assert AuditLog(tmp_path).read().doubts == ("what was before line 2 was changed or taken out",)
    forged = json.dumps({"hmac": "0" * 64, "after": "", "entry": json.loads(lines[0])["entry"]}).encode()
    path.write_bytes(b"\n".join([*lines, forged, b"\xff\x00", b"[]", b"7"]) + b"\n")
    assert [one.number for one in AuditLog(tmp_path).read().entries] == [1, 2, 3, 4]
    assert len(AuditLog(tmp_path).read().doubts) == 4


@pytest.mark.parametrize("form", ODD_FILES)
def test_what_is_no_log_at_all_is_told_and_put_aside_by_the_next_entry(tmp_path, form, caplog):
    written(tmp_path, 2)
    put(form, tmp_path / NAME)
    if form != "a link to itself":  # which names nothing
        assert AuditLog(tmp_path).read().doubts
    written(tmp_path, 1)
    assert numbers(tmp_path) == [1]
    assert "is put aside, and begun anew" in caplog.text


def test_it_never_grows_beyond_its_bound_and_goes_on_counting(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_log, "MOST_BYTES", 8000)
    written(tmp_path, 60)
    assert (tmp_path / NAME).stat().st_size <= 8000
    kept = numbers(tmp_path)
    assert kept == list(range(kept[0], 61))
    assert len(kept) > 8
    assert AuditLog(tmp_path).read().doubts == ()


def test_an_endless_reason_is_one_line_that_ends(tmp_path):
    AuditLog(tmp_path).append(AuditEntry(Happened.FAILED, reason="a\nb " + "x" * 100_000))
    (entry,) = AuditLog(tmp_path).read().entries
    assert entry.reason.startswith("a b x")
    assert len(entry.reason) == audit_log.MOST_REASON_CHARS


def test_two_processes_write_without_losing_a_line(tmp_path):
    written(tmp_path, 1)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=written, args=(tmp_path, 20)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert numbers(tmp_path) == list(range(1, 42))
    assert AuditLog(tmp_path).read().doubts == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="absent here: a user whom the disk refuses (root writes anywhere)")
def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be written"):
        written(tmp_path, 1)


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    written(tmp_path, 2)

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audit_log.os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        written(tmp_path, 1)
    monkeypatch.undo()
    assert AuditLog(tmp_path).read().doubts == ()
    assert written(tmp_path, 1)[0].number in (3, 4)
