from __future__ import annotations

from pathlib import Path

import pytest

from vajra_edge.daemon.build_process import Kills, count, evidence

V2 = "0::/system.slice/vajra-edge.service\n"
V1 = "9:name=systemd:/x\n4:cpu,memory:/system.slice/vajra-edge.service\n0::/x\n"
GROUP = "system.slice/vajra-edge.service"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine without any counter."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "groups").mkdir()
    return tmp_path


def counted(machine: Path) -> Kills:
    return count(machine / "proc", machine / "groups")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_group_of_our_own_is_counted_rather_than_the_whole_machine(machine: Path):
    write(machine / "proc/self/cgroup", V2)
    write(machine / "proc/vmstat", "nr_free_pages 7\noom_kill 40\n")
    write(machine / "groups" / GROUP / "memory.events", "low 0\nmax 9\noom 3\noom_kill 2\n")
    assert counted(machine) == Kills(str(machine / "groups" / GROUP / "memory.events"), 2)


def test_a_group_of_the_first_version_is_counted_too(machine: Path):
    write(machine / "proc/self/cgroup", V1)
    write(machine / "groups/memory" / GROUP / "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    kills = counted(machine)
    assert kills
    assert kills.number == 5


@pytest.mark.parametrize("group", [V2, V1, "", "0::/../../elsewhere\n", "nonsense\n"])
def test_where_the_group_does_not_count_the_machine_does(machine: Path, group: str):
    write(machine / "proc/self/cgroup", group)
    write(machine / "proc/vmstat", "oom_kill 40\n")
    assert counted(machine) == Kills(str(machine / "proc/vmstat"), 40)


@pytest.mark.parametrize("vmstat", ["", "nr_free_pages 7\n", "oom_kill many\n"])
def test_where_nothing_counts_nothing_is_known(machine: Path, vmstat: str):
    assert counted(machine) is None
    write(machine / "proc/vmstat", vmstat)
    assert counted(machine) is None


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (Kills("a", 2), Kills("a", 3), ", most likely for want of memory"),
        (Kills("a", 2), Kills("a", 2), ""),
        (Kills("a", 2), Kills("b", 9), " by somebody or for want of memory"),
        (None, Kills("a", 2), " by somebody or for want of memory"),
        (None, None, " by somebody or for want of memory"),
    ],
)
def test_want_of_memory_is_blamed_only_where_the_kernel_counted_a_kill(before: Kills, after: Kills, said: str):
    assert evidence(before, after) == said


def test_this_machine_is_read_without_an_error():
    kills = count()
    assert kills is None or kills.number >= 0
