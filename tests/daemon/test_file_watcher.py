from __future__ import annotations

import hashlib
import os
import queue
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import LIMIT_S, wait_for

from vajra_edge.build.request import weights_digest
from vajra_edge.daemon.file_watcher import FileChanged, FileWatch, WatchedFile, look_at
from vajra_edge.errors import WeightsError

SETTLE_S = 2.0


class Counting:
    """A digest that counts how often a file is read."""

    def __init__(self) -> None:
        self.reads = 0

    def __call__(self, path: Path, beat) -> str:
        self.reads += 1
        return weights_digest(path, beat)


@pytest.fixture
def digest():
    return Counting()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.onnx"
    path.write_bytes(b"one")
    return path


@pytest.fixture
def watched(file, digest):
    return WatchedFile("weights", file, digest)


def moved(file: Path, change: Callable[[], object]) -> None:
    """Change a file until its times tell: before Linux 6.13 their clock goes in steps of some milliseconds."""
    before_ns = file.stat().st_ctime_ns
    wait_for(lambda: (change(), file.stat().st_ctime_ns != before_ns)[1])


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_first_look_tells_at_once(watched, file):
    assert watched.poll(0.0, SETTLE_S) == FileChanged("weights", file, sha(b"one"))


def test_a_file_that_did_not_move_is_read_once(watched, digest):
    for now_s in range(10):
        watched.poll(now_s, SETTLE_S)
    assert digest.reads == 1


def test_a_change_counts_once_it_is_quiet(watched, file, digest):
    watched.poll(0.0, SETTLE_S)
    file.write_bytes(b"two")
    assert watched.poll(10.0, SETTLE_S) is None
    file.write_bytes(b"three!")  # still being copied
    assert watched.poll(11.9, SETTLE_S) is None
    assert watched.poll(13.0, SETTLE_S) is None
    assert digest.reads == 1
    assert watched.poll(13.9, SETTLE_S) == FileChanged("weights", file, sha(b"three!"))
    assert watched.poll(20.0, SETTLE_S) is None


def test_a_touch_is_read_and_found_to_be_nothing(watched, file, digest):
    watched.poll(0.0, SETTLE_S)
    moved(file, lambda: os.utime(file))
    assert watched.poll(1.0, SETTLE_S) is None
    assert watched.poll(4.0, SETTLE_S) is None
    assert watched.poll(5.0, SETTLE_S) is None
    assert digest.reads == 2


def test_new_content_of_the_same_size_with_the_old_time_is_seen(watched, file):
    watched.poll(0.0, SETTLE_S)
    old = file.stat()
    moved(file, lambda: file.write_bytes(b"ONE"))
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))
    watched.poll(1.0, SETTLE_S)
    assert watched.poll(4.0, SETTLE_S) == FileChanged("weights", file, sha(b"ONE"))


def test_a_file_that_vanishes_is_told_with_the_reason_and_again_when_it_is_back(watched, file):
    watched.poll(0.0, SETTLE_S)
    file.unlink()
    assert watched.poll(1.0, SETTLE_S) is None
    gone = watched.poll(4.0, SETTLE_S)
    assert gone
    assert gone.digest is None
    assert "cannot be read: No such file" in gone.reason
    assert watched.poll(9.0, SETTLE_S) is None
    file.write_bytes(b"one")
    assert watched.poll(10.0, SETTLE_S) is None
    assert watched.poll(13.0, SETTLE_S) == FileChanged("weights", file, sha(b"one"))


def test_a_rename_over_that_leaves_a_short_gap_tells_only_the_new_content(watched, file, tmp_path):
    watched.poll(0.0, SETTLE_S)
    file.unlink()
    watched.poll(1.0, SETTLE_S)
    new = tmp_path / "new"
    new.write_bytes(b"two")
    new.rename(file)
    assert watched.poll(2.0, SETTLE_S) is None
    assert watched.poll(4.0, SETTLE_S) == FileChanged("weights", file, sha(b"two"))


def test_a_replaced_symlink_is_followed_as_kubernetes_replaces_them(tmp_path, digest):
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "weights.onnx").write_text(version)
    (tmp_path / "data").symlink_to("v1")
    (tmp_path / "weights.onnx").symlink_to("data/weights.onnx")
    watched = WatchedFile("weights", tmp_path / "weights.onnx", digest)
    assert watched.poll(0.0, SETTLE_S) == FileChanged("weights", watched.path, sha(b"v1"))
    (tmp_path / "data.new").symlink_to("v2")
    (tmp_path / "data.new").rename(tmp_path / "data")
    watched.poll(1.0, SETTLE_S)
    assert watched.poll(4.0, SETTLE_S) == FileChanged("weights", watched.path, sha(b"v2"))


def test_a_file_that_moves_while_it_is_read_waits_until_it_is_quiet_again(file):
    def grows(path, _):
        content = path.read_bytes()
        if content != b"two, complete":
            path.write_bytes(b"two, complete")
        return sha(content)

    watched = WatchedFile("weights", file, lambda path, _: sha(path.read_bytes()))
    watched.poll(0.0, SETTLE_S)
    watched._digest = grows
    file.write_bytes(b"two")
    watched.poll(1.0, SETTLE_S)
    assert watched.poll(4.0, SETTLE_S) is None
    assert watched.poll(5.0, SETTLE_S) is None
    assert watched.poll(8.0, SETTLE_S) == FileChanged("weights", file, sha(b"two, complete"))


def test_an_unreadable_file_is_told_and_noticed_once_its_mode_is_mended(file):
    allowed = []

    def refuses(path, _):
        if not allowed:
            raise WeightsError(f"weights {path} cannot be read: Permission denied")
        return sha(path.read_bytes())

    watched = WatchedFile("weights", file, refuses)
    first = watched.poll(0.0, SETTLE_S)
    assert first
    assert "Permission denied" in first.reason
    allowed.append(True)
    file.chmod(0o640)
    watched.poll(1.0, SETTLE_S)
    assert watched.poll(4.0, SETTLE_S) == FileChanged("weights", file, sha(b"one"))


def test_the_thread_posts_beats_and_goes_on_after_a_fault(file, caplog):
    inbox: queue.SimpleQueue[FileChanged] = queue.SimpleQueue()
    beats: queue.SimpleQueue[None] = queue.SimpleQueue()
    watch = FileWatch(inbox.put, lambda: beats.put(None), settle_s=0.01, poll_s=0.01)

    def broken(path, _):
        raise ZeroDivisionError(path)

    watch.follow("settings", file, broken)
    watch.follow("weights", file, weights_digest)
    watch.start()
    told = {changed.name: changed for changed in (inbox.get(timeout=LIMIT_S), inbox.get(timeout=LIMIT_S))}
    assert told["weights"].digest == sha(b"one")
    assert "cannot be watched" in told["settings"].reason
    moved(file, lambda: file.write_bytes(b"two"))
    while (changed := inbox.get(timeout=LIMIT_S)).name != "weights":
        pass
    assert changed.digest == sha(b"two")
    assert beats.get(timeout=LIMIT_S) is None
    watch.close()
    assert "ZeroDivisionError" in caplog.text


def test_a_file_is_hashed_with_a_beat_for_each_piece(tmp_path):
    file, beats = tmp_path / "net.onnx", []
    file.write_bytes(bytes(5 << 20))
    watch = FileWatch(lambda _: None, lambda: beats.append(1), settle_s=0.0, poll_s=1.0)
    watch.follow("weights", file, weights_digest)
    watch._files["weights"].poll(0.0, SETTLE_S)
    assert len(beats) == 5


def test_a_file_larger_than_any_network_is_refused_unread(tmp_path):
    file = tmp_path / "disk.img"
    with file.open("wb") as sparse:
        sparse.truncate(2 << 40)
    watched = WatchedFile("weights", file, weights_digest)
    changed = watched.poll(0.0, SETTLE_S)
    assert changed.digest is None
    assert "has 2199 GB" in changed.reason
    assert "name a .pt or .onnx file in [weights] path" in changed.reason


def test_a_folder_is_another_once_a_file_in_it_is_made_renamed_overwritten_or_deleted(tmp_path):
    def digest(folder, _beat):
        return " ".join(f"{path.name}={path.read_text()}" for path in sorted(folder.iterdir()))

    watched = WatchedFile("keys", tmp_path / "keys", digest)
    (tmp_path / "keys").mkdir()
    key = tmp_path / "keys" / "fleet.pub"
    assert watched.poll(0.0, 0.0).digest == ""
    for number, (change, expected) in enumerate(
        (
            (lambda: key.write_text("a"), "fleet.pub=a"),
            (lambda: moved(key, lambda: key.write_text("b")), "fleet.pub=b"),
            (lambda: key.rename(key.with_suffix(".revoked")), "fleet.revoked=b"),
            (lambda: key.with_suffix(".revoked").unlink(), ""),
        ),
        1,
    ):
        change()
        watched.poll(float(number), 0.0)
        assert watched._told == (expected, "")
    (tmp_path / "keys" / "dangling.pub").symlink_to("nowhere")
    assert look_at(tmp_path / "keys") is not None
    assert look_at(tmp_path / "none") is None


def test_keys_that_kubernetes_mounts_are_others_once_it_moves_its_one_link(tmp_path):
    """``fleet.pub -> ..data/fleet.pub``, ``..data -> ..1``: what is replaced is the link that nobody names."""
    keys = tmp_path / "keys"
    for number in "12":
        (keys / f"..{number}").mkdir(parents=True)
        (keys / f"..{number}" / "fleet.pub").write_text(number)
    (keys / "..data").symlink_to("..1")
    (keys / "fleet.pub").symlink_to("..data/fleet.pub")
    watched = WatchedFile("keys", keys, lambda folder, _beat: (folder / "fleet.pub").read_text())
    assert watched.poll(0.0, 0.0).digest == "1"
    (keys / "..data.new").symlink_to("..2")
    (keys / "..data.new").rename(keys / "..data")
    assert watched.poll(1.0, 0.0).digest == "2"
