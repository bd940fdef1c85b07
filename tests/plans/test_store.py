from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from odd_files import ODD_FILES, put
from waiting import LIMIT_S

from vajra_edge import clock, durable
from vajra_edge.errors import PlanError, StoreError
from vajra_edge.plans.charges import Charged
from vajra_edge.plans.history import History
from vajra_edge.plans.manifest import Manifest, Plan
from vajra_edge.plans.store import OUTBOX, QUARANTINED_KEPT, STALE_S, EngineStore

Make = Callable[[str], Manifest]
GIB = 1 << 30


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "state", GIB)


def mounted(arguments: list[str], folder: Path) -> Iterator[Path]:
    done = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"absent here: the right to mount ({done.stderr.strip()})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    yield from mounted(["-t", "tmpfs", "-o", "size=300k", "tmpfs"], folder)


def test_a_committed_plan_is_found_with_all_that_is_known_about_it(store: EngineStore, manifest_of: Make):
    made = store.commit(b"plan", manifest_of("a"))
    found = store.get(made.fingerprint)
    assert found == made
    assert found.read() == b"plan"
    assert found.manifest == replace(manifest_of("a"), sha256=made.manifest.sha256, size_bytes=4)
    assert not found.manifest.lowered


def test_a_store_that_was_never_written_is_empty_and_stays_untouched(store: EngineStore):
    assert store.get("0" * 64) is None
    assert (store.current(), store.previous(), store.plans()) == (None, None, ())
    assert store.put_aside() == ()
    assert not store.root.exists()


def test_only_the_service_may_read_key_and_plans(store: EngineStore, manifest_of: Make):
    plan = store.commit(b"plan", manifest_of("a"))
    modes = {path: path.stat().st_mode & 0o777 for path in (store.root / "store.key", plan.path, plan.path.parent)}
    assert list(modes.values()) == [0o600, 0o600, 0o700]
    assert len((store.root / "store.key").read_bytes()) == 32


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "plan").write_bytes(b"pla"),
        lambda folder: (folder / "plan").write_bytes(b"plam"),
        lambda folder: (folder / "plan").unlink(),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_bytes(b""),
        lambda folder: (folder / "manifest.json").write_bytes(b"[" * 100_000),
        lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe"),
        lambda folder: (folder / "manifest.json").write_bytes(
            (folder / "manifest.json").read_bytes().replace(b'"build_s": 1.5', b'"build_s": 2.5')
        ),
        lambda folder: (folder.parents[1] / "store.key").write_bytes(bytes(32)),
        lambda folder: (folder.parents[1] / "store.key").unlink(),
    ],
    ids=[
        "truncated plan", "flipped bits", "no plan", "no manifest", "empty manifest", "deep manifest",
        "binary manifest", "edited manifest", "another key", "no key",
    ],
)  # fmt: skip
def test_a_plan_that_is_not_whole_or_not_ours_goes_to_quarantine(store: EngineStore, manifest_of: Make, damage):
    plan = store.commit(b"plan", manifest_of("a"))
    damage(plan.path.parent)
    assert store.get(plan.fingerprint) is None
    assert not plan.path.parent.exists()
    (aside,) = (store.root / "quarantine").iterdir()
    assert (aside / "reason.txt").read_text().strip()
    store.commit(b"plan", manifest_of("a"))
    assert store.get(plan.fingerprint), "a rebuild heals it"


def test_every_single_flipped_byte_of_a_manifest_is_noticed(store: EngineStore, manifest_of: Make):
    plan = store.commit(b"plan", manifest_of("a"))
    path = plan.path.parent / "manifest.json"
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        found = store.get(plan.fingerprint)
        assert found is None or found == plan, f"byte {at} changed what the manifest says"
        shutil.rmtree(store.root / "quarantine")
        plan = store.commit(b"plan", manifest_of("a"))


def test_a_plan_under_another_name_is_refused(store: EngineStore, manifest_of: Make):
    plan = store.commit(b"plan", manifest_of("a"))
    plan.path.parent.rename(plan.path.parent.with_name("f" * 64))
    assert store.get("f" * 64) is None


def test_a_plan_changed_after_it_was_looked_up_is_not_read(store: EngineStore, manifest_of: Make):
    plan = store.commit(b"plan", manifest_of("a"))
    plan.path.write_bytes(b"evil")
    with pytest.raises(PlanError, match="SHA-256"):
        plan.read()
    plan.path.unlink()
    with pytest.raises(PlanError, match="No such file"):
        plan.read()


def test_a_damaged_key_is_an_error_that_says_what_to_do(store: EngineStore, manifest_of: Make):
    plan = store.commit(b"plan", manifest_of("a"))
    (store.root / "store.key").write_bytes(b"short")
    for attempt in (lambda: store.get(plan.fingerprint), lambda: store.commit(b"plan", manifest_of("b"))):
        with pytest.raises(StoreError, match="delete it"):
            attempt()


def test_a_manifest_of_another_schema_is_built_anew(store: EngineStore, manifest_of: Make):
    plan = store.commit(b"plan", replace(manifest_of("a"), schema=99))
    assert store.get(plan.fingerprint) is None


def test_a_name_that_is_no_fingerprint_never_becomes_a_path(store: EngineStore):
    for name in ("../../etc", "", "A" * 64):
        with pytest.raises(StoreError, match="not a fingerprint"):
            store.get(name)


def test_a_good_plan_becomes_current_and_the_one_before_previous(store: EngineStore, manifest_of: Make):
    plans = [store.commit(name.encode(), manifest_of(name)) for name in "abc"]
    for plan in plans:
        store.mark_good(plan.fingerprint)
        store.mark_good(plan.fingerprint)
    assert (store.current(), store.previous()) == (plans[2], plans[1])


def test_current_is_a_relative_link_so_that_the_folder_can_move(store: EngineStore, manifest_of: Make, tmp_path: Path):
    plan = store.commit(b"plan", manifest_of("a"))
    store.mark_good(plan.fingerprint)
    moved = EngineStore(store.root.rename(tmp_path / "elsewhere"), GIB)
    assert moved.current().read() == b"plan"


@pytest.mark.parametrize("wrong", ["file", "foreign link"])
def test_a_current_that_is_no_plan_is_none(store: EngineStore, manifest_of: Make, wrong: str):
    store.commit(b"plan", manifest_of("a"))
    link = store.root / "current"
    link.write_text("x") if wrong == "file" else link.symlink_to("/etc")
    assert store.current() is None


def aged(store: EngineStore, names: str, manifest_of: Make, bytes_each: int = 1000) -> list[Plan]:
    """Plans of which the first is the oldest."""
    plans = [store.commit(bytes(bytes_each), manifest_of(name)) for name in names]
    for age_s, plan in enumerate(reversed(plans)):
        os.utime(plan.path.parent, (1e9 - age_s, 1e9 - age_s))
    return plans


def test_pruning_deletes_the_oldest_beyond_the_cap_but_never_what_is_needed(store: EngineStore, manifest_of: Make):
    plans = aged(store, "abcdef", manifest_of)
    store.mark_good(plans[0].fingerprint)
    store.mark_good(plans[1].fingerprint)
    size_bytes = sum(path.stat().st_size for path in plans[0].path.parent.iterdir())
    small = EngineStore(store.root, 4 * size_bytes + 100)
    assert small.prune(keep=[plans[2].fingerprint]) == (plans[3].fingerprint, plans[4].fingerprint)
    assert set(small.plans()) == {
        plans[0].fingerprint,
        plans[1].fingerprint,
        plans[2].fingerprint,
        plans[5].fingerprint,
    }
    assert EngineStore(store.root, 1).prune(keep=[plans[2].fingerprint]) == (plans[5].fingerprint,)


def test_what_unsent_messages_take_plans_cannot(store: EngineStore, manifest_of: Make):
    plans = aged(store, "abc", manifest_of)
    store.mark_good(plans[0].fingerprint)
    size_bytes = sum(path.stat().st_size for path in plans[0].path.parent.iterdir())
    small = EngineStore(store.root, 3 * size_bytes + 100)
    assert small.prune() == ()
    (store.root / OUTBOX).mkdir()
    (store.root / OUTBOX / "outbox.sqlite").write_bytes(bytes(size_bytes))
    assert small.prune() == (plans[1].fingerprint,)


@pytest.mark.parametrize("beside", ["bundles/0a/weights.onnx", "history.jsonl"])
def test_what_bundles_and_the_history_take_plans_cannot(store: EngineStore, manifest_of: Make, beside: str):
    plans = aged(store, "abc", manifest_of)
    store.mark_good(plans[0].fingerprint)
    size_bytes = sum(path.stat().st_size for path in plans[0].path.parent.iterdir())
    small = EngineStore(store.root, 3 * size_bytes + 100)
    (store.root / beside).parent.mkdir(parents=True, exist_ok=True)
    (store.root / beside).write_bytes(bytes(size_bytes))
    (store.root / "bundles").mkdir(exist_ok=True)
    (store.root / "bundles" / "current").symlink_to("0a")  # counted once
    assert small.prune() == (plans[1].fingerprint,)


@pytest.mark.parametrize("form", ODD_FILES)
@pytest.mark.parametrize("name", ["manifest.json", "plan"])
def test_a_plan_with_something_else_in_the_place_of_a_file_is_damaged(
    store: EngineStore, manifest_of: Make, form: str, name: str
):
    plan = store.commit(b"plan", manifest_of("a"))
    put(form, plan.path.with_name(name))
    assert store.get(plan.fingerprint) is None
    assert "was damaged" in store.damage(plan.fingerprint)
    assert store.commit(b"plan", manifest_of("a")).read() == b"plan"


@pytest.mark.parametrize("form", ODD_FILES)
def test_a_key_that_is_no_file_is_an_error_that_says_what_to_do(store: EngineStore, manifest_of: Make, form: str):
    plan = store.commit(b"plan", manifest_of("a"))
    put(form, store.root / "store.key")
    with pytest.raises(StoreError, match=r"is no key.*delete it"):
        store.get(plan.fingerprint)


def test_where_room_is_short_damaged_plans_go_before_those_that_may_serve(store: EngineStore, manifest_of: Make):
    for _ in range(2):
        store.quarantine(store.commit(bytes(1000), manifest_of("d")).fingerprint, "crashed")
    plans = aged(store, "ab", manifest_of)
    size_bytes = sum(path.stat().st_size for path in plans[0].path.parent.iterdir())
    assert EngineStore(store.root, 3 * size_bytes + 500).prune() == ()
    assert len(list((store.root / "quarantine").iterdir())) == 1


def test_a_store_that_is_over_its_cap_with_what_is_needed_alone_says_so(
    store: EngineStore, manifest_of: Make, caplog: pytest.LogCaptureFixture
):
    plan = store.commit(bytes(1000), manifest_of("a"))
    assert EngineStore(store.root, 1).prune(keep=[plan.fingerprint]) == ()
    assert "all of that is needed; raise it" in caplog.text


def damage(plan: Plan) -> None:
    plan.path.write_bytes(b"plam")


def test_what_befell_a_damaged_plan_is_told_until_it_is_built_anew(store: EngineStore, manifest_of: Make):
    plan = store.commit(b"plan", manifest_of("a"))
    assert store.damage(plan.fingerprint) == ""
    damage(plan)
    assert store.get(plan.fingerprint) is None
    told = f"the stored plan {plan.fingerprint[:12]} was damaged: its plan's SHA-256 differs"
    assert store.damage(plan.fingerprint) == told
    assert EngineStore(store.root, GIB).damage(plan.fingerprint) == told, "after a restart too"
    store.commit(b"plan", manifest_of("a"))
    assert store.damage(plan.fingerprint) == ""


def test_damage_of_the_plan_that_served_last_is_told_whatever_is_wanted(store: EngineStore, manifest_of: Make):
    plan = store.commit(b"plan", manifest_of("a"))
    store.mark_good(plan.fingerprint)
    damage(plan)
    assert store.current() is None
    wanted = manifest_of("b").fingerprint.digest
    assert "SHA-256 differs" in store.damage(wanted)
    store.commit(b"plan", manifest_of("b"))
    store.mark_good(wanted)
    assert store.damage(wanted) == "", "another one is good by now"


def test_the_newest_reason_counts_and_a_lost_one_is_no_silence(store: EngineStore, manifest_of: Make):
    name = manifest_of("a").fingerprint.digest
    for reason in ("older", "newer"):
        store.quarantine(store.commit(b"plan", manifest_of("a")).fingerprint, reason)
    assert store.damage(name).endswith("was damaged: newer")
    for path in (store.root / "quarantine").glob("*/reason.txt"):
        path.unlink()
    assert store.damage(name).endswith("was damaged: why was not noted")


def test_damage_is_history_once_the_plan_was_built_anew_even_if_that_one_is_deleted(
    store: EngineStore, manifest_of: Make
):
    plan = store.commit(b"plan", manifest_of("a"))
    store.quarantine(plan.fingerprint, "its plan's SHA-256 differs")
    store.commit(b"plan", manifest_of("a"))
    shutil.rmtree(plan.path.parent)
    assert store.damage(plan.fingerprint) == ""
    store.quarantine(store.commit(b"plan", manifest_of("a")).fingerprint, "damaged once more")
    assert store.damage(plan.fingerprint).endswith("damaged once more")


def test_a_store_without_plans_tells_of_no_damage_and_stays_untouched(store: EngineStore):
    assert store.damage("0" * 64) == ""
    assert not store.root.exists()


def test_a_plan_that_was_built_after_the_clock_was_set_back_is_the_newest(store: EngineStore, manifest_of: Make):
    first, second = (store.commit(b"plan", manifest_of(name)).fingerprint for name in "ab")
    ahead_s = clock.now().unix_s + 10 * 365 * 86_400.0
    os.utime(store.root / "engines" / second, (ahead_s, ahead_s))
    third = store.commit(b"plan", manifest_of("c")).fingerprint
    assert store.plans() == (third, second, first)


def test_pruning_keeps_a_few_quarantined_plans_to_look_at(store: EngineStore, manifest_of: Make):
    for _ in range(QUARANTINED_KEPT + 2):
        store.quarantine(store.commit(b"plan", manifest_of("a")).fingerprint, "crashed")
    store.prune()
    assert len(list((store.root / "quarantine").iterdir())) == QUARANTINED_KEPT


def test_what_a_killed_build_left_is_swept_by_age(store: EngineStore, manifest_of: Make):
    store.commit(b"plan", manifest_of("a"))
    folder, link, file = (store.root / "staging" / name for name in ("folder", "link", "file"))
    folder.mkdir()
    (folder / "plan").write_bytes(b"half")
    link.symlink_to("../engines")
    file.write_bytes(b"")
    now = replace(clock.now(), boot_s=2.0 * STALE_S)
    store.sweep(replace(now, unix_s=now.unix_s + STALE_S - 10))
    assert len(list((store.root / "staging").iterdir())) == 3
    store.sweep(replace(now, unix_s=now.unix_s + 10 * STALE_S, boot_s=60.0))
    assert len(list((store.root / "staging").iterdir())) == 3, "the clock was set; nothing is older than the boot"
    store.sweep(replace(now, unix_s=now.unix_s + STALE_S + 10))
    assert list((store.root / "staging").iterdir()) == []
    assert store.plans()


def test_the_lock_tells_who_holds_it_and_goes_with_its_holder(store: EngineStore):
    told: list[str] = []
    holder = (
        "import sys, time; from pathlib import Path; from vajra_edge.plans.store import EngineStore\n"
        "with EngineStore(Path(sys.argv[1]), 1).lock('rebuild'):\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", holder, str(store.root)], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(StoreError, match=rf"rebuild \(pid {other.pid}\)"), store.lock("daemon"):
            pass

        def wait(for_whom: str) -> None:
            told.append(for_whom)
            other.kill()

        with store.lock("daemon", wait_s=LIMIT_S, waiting=wait):
            assert f"rebuild (pid {other.pid})" in told[0]
    with store.lock("daemon"):
        pass


def test_waiting_for_the_lock_can_be_given_up(store: EngineStore):
    def give_up(_: str) -> None:
        raise KeyboardInterrupt

    with store.lock("daemon"), pytest.raises(KeyboardInterrupt), store.lock("again", wait_s=9, waiting=give_up):
        pass


def test_too_little_space_is_said_before_the_build(store: EngineStore):
    free_bytes = shutil.disk_usage(store.root.parent).free
    store.require_space(1)
    with pytest.raises(StoreError, match="MB free, a build needs") as raised:
        store.require_space(free_bytes)
    assert raised.value.remedy


def test_a_full_disk_keeps_the_old_plan_and_leaves_nothing_half(small_disk: Path, manifest_of: Make):
    store = EngineStore(small_disk / "state", GIB)
    old = store.commit(b"old", manifest_of("a"))
    store.mark_good(old.fingerprint)
    with pytest.raises(StoreError, match="No space left on device") as raised:
        store.commit(os.urandom(400_000), manifest_of("b"))
    assert "\n" not in str(raised.value)
    assert "free space" in str(raised.value)
    assert store.current() == old
    assert list((store.root / "staging").iterdir()) == []
    store.commit(os.urandom(100_000), manifest_of("c"))


def test_a_write_that_breaks_off_leaves_nothing_half(store: EngineStore, manifest_of: Make):
    store.commit(b"old", manifest_of("a"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StoreError, match="File too large"):
            store.commit(bytes(200_000), manifest_of("b"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list((store.root / "staging").iterdir()) == []
    assert len(store.plans()) == 1


@pytest.fixture
def read_only(store: EngineStore, manifest_of: Make) -> Iterator[EngineStore]:
    store.mark_good(store.commit(b"plan", manifest_of("a")).fingerprint)
    damaged = store.commit(b"damaged", manifest_of("b"))
    damaged.path.write_bytes(b"?")
    for _ in mounted(["--bind", str(store.root)], store.root):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(store.root)], check=True)
        yield store


def test_a_read_only_store_still_serves_and_says_why_it_cannot_be_written(read_only: EngineStore, manifest_of: Make):
    assert read_only.current().read() == b"plan"
    assert read_only.get(manifest_of("b").fingerprint.digest) is None, "damaged, though it cannot be moved"
    attempts = [
        lambda: read_only.commit(b"new", manifest_of("c")),
        lambda: read_only.mark_good("c" * 64),
        lambda: History(read_only.root).charge("c" * 64, Charged.CRASH, "SIGSEGV"),
        lambda: read_only.quarantine(manifest_of("a").fingerprint.digest, "crashed"),
    ]
    for attempt in attempts:
        with pytest.raises(StoreError, match=r"Read-only file system.*mount that disk writable"):
            attempt()


def test_a_store_that_is_a_file_is_one_line(tmp_path: Path, manifest_of: Make):
    (tmp_path / "state").write_text("x")
    store = EngineStore(tmp_path / "state", GIB)
    assert store.get("0" * 64) is None
    with pytest.raises(StoreError, match="cannot be written") as raised:
        store.commit(b"plan", manifest_of("a"))
    assert "\n" not in str(raised.value)


def test_two_processes_that_make_the_key_agree_on_one(store: EngineStore, manifest_of: Make):
    durable.make_folder(store.root)
    commit = (
        "import json, sys; from pathlib import Path; from vajra_edge.plans.store import EngineStore\n"
        "from vajra_edge.plans.manifest import Manifest\n"
        "EngineStore(Path(sys.argv[1]), 1).commit(b'plan', Manifest.from_json(json.loads(sys.argv[2])))"
    )
    command = [sys.executable, "-c", commit, str(store.root)]
    children = [subprocess.Popen([*command, json.dumps(manifest_of(name).to_json())]) for name in "abcd"]
    assert [child.wait() for child in children] == [0, 0, 0, 0]
    assert all(store.get(manifest_of(name).fingerprint.digest) for name in "abcd")


@pytest.mark.parametrize("scenario", ["first boot", "replace", "replace old", "forced", "no exchange"])
def test_a_kill_at_any_moment_leaves_a_usable_current_or_a_clean_rebuild(
    tmp_path: Path, manifest_of: Make, scenario: str
):
    old, new = manifest_of("a"), manifest_of("b")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("kill_matrix.py")), str(tmp_path), scenario],
        input=json.dumps([old.to_json(), new.to_json()]),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    points = [json.loads(line) for line in done.stdout.splitlines()]
    assert points[-1]["completed"]
    assert sum(not point["completed"] for point in points) >= 15
    mine, theirs = new.fingerprint.digest, old.fingerprint.digest
    usable = {"first boot": {None, mine}, "forced": {mine}, "no exchange": {mine, None}}.get(scenario, {theirs, mine})
    for point in points:
        assert point["after"]["current"] in usable, point
        assert point["again"]["current"] == mine, point
        assert point["again"]["wanted"], point
        if scenario != "no exchange":
            assert scenario == "forced" or point["after"]["wanted"] == point["after"]["wanted_found"], point


def test_a_plan_of_a_disk_that_cannot_swap_names_is_replaced_all_the_same(
    store: EngineStore, manifest_of: Make, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(durable, "_exchange", lambda first, second: False)
    store.commit(b"old", manifest_of("a"))
    assert store.get(store.commit(b"new", manifest_of("a")).fingerprint).read() == b"new"
    assert list((store.root / "staging").iterdir()) == []


def test_an_error_of_the_disk_while_swapping_names_is_one_line(store: EngineStore):
    with pytest.raises(StoreError, match="No such file"), durable.reported(store.root, "written"):
        durable._exchange(store.root / "a", store.root / "b")
