"""A board: an aarch64 machine under QEMU with a systemd, a broker and a camera of its own. Its supply can be cut."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ports import free_port
from waiting import wait_for

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]

BOOT_S = 900.0
"""The longest wait for a boot, which takes 20 s on two idle cores."""

COMMAND_S = 5400.0
"""Likewise for one command; an upgrade beside a daemon that serves takes over half an hour on a busy machine."""

MACHINE = ("-M", "virt", "-cpu", "cortex-a76", "-smp", "2", "-m", "3072")
"""The processor nearest to Orin's Cortex-A78AE that QEMU 7.0 has: the same instructions of FP16 and dot products."""


def absent() -> str:
    """What keeps this machine from emulating a board; empty where nothing does."""
    if os.geteuid() != 0:
        return "root"
    return "" if shutil.which("apt-get") else "apt-get (QEMU and Debian's packages for arm64 come by it)"


@dataclass(frozen=True)
class Image:
    """What image.sh makes: kernel, first disk and the key of root; its disk is never written to."""

    folder: Path

    @classmethod
    def made(cls) -> Image:
        """The one below $BOARD_CACHE, made where it is not there.

        Raises:
            CalledProcessError: it cannot be made; what went wrong is on stderr.
        """
        folder = Path(os.environ.get("BOARD_CACHE") or Path.home() / ".cache/vajra-edge-board").resolve()
        subprocess.run(["bash", str(HERE / "image.sh"), str(folder), str(ROOT)], check=True)
        return cls(folder)

    @property
    def disk(self) -> Path:
        return self.folder / "disk"


def layer(below: Path, path: Path) -> Path:
    """A disk that holds what differs from ``below``, which must not change any more."""
    form = "raw" if below.name == "disk" else "qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(below), "-F", form, str(path)]
    subprocess.run(command, check=True)
    return path


class Board:
    """One machine, off until ``boot``.

    Args:
        image: kernel and key.
        disk: a ``layer``, written to.
        folder: for what this board alone needs.
        device_tree: another one than QEMU's own.
        drives: further raw disks, read only: /dev/vdb and so on.
    """

    def __init__(
        self, image: Image, disk: Path, folder: Path, device_tree: Path | None = None, drives: Sequence[Path] = ()
    ) -> None:
        self._image, self.disk, self._folder = image, disk, folder
        self._device_tree, self._drives = device_tree, drives
        self._ssh_port, self.mqtt_port = free_port(), free_port()
        self._qemu: subprocess.Popen[bytes] | None = None

    @property
    def is_on(self) -> bool:
        """Whether its supply is."""
        return self._qemu is not None

    def boot(self) -> float:
        """Supply on; returns how many seconds passed until a command could be run."""
        began_s = time.monotonic()
        with (self._folder / "qemu.log").open("ab") as said:
            self._qemu = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            wait_for(self._answers, BOOT_S, step_s=1.0)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.console()[-4000:]}") from None
        return time.monotonic() - began_s

    def cut(self) -> None:
        """Supply off. What the guest has written to its disk stays, what its kernel still kept in memory is lost."""
        if self._qemu is not None:
            self._qemu.send_signal(signal.SIGKILL)
            self._qemu.wait()
            self._qemu = None

    def power_off(self) -> None:
        """An end in order."""
        if self._qemu is not None:
            self._ssh("systemctl poweroff", 60.0)
            self._qemu.wait(BOOT_S)
            self._qemu = None

    def run(self, command: str, limit_s: float = COMMAND_S, *, check: bool = True) -> str:
        """A shell line of root's; what it wrote, stderr too.

        Raises:
            AssertionError: its exit code is not 0, and ``check`` says that it must be.
        """
        ended = self._ssh(command, limit_s)
        said = ended.stdout.decode(errors="replace")
        assert not check or ended.returncode == 0, f"{command}: exit code {ended.returncode}\n{said[-6000:]}"
        return said

    def journal(self, *arguments: str) -> str:
        """Of the service, in this boot where nothing else is asked for."""
        return self.run(f"journalctl --no-pager --output=cat --unit=vajra-edge {' '.join(arguments) or '--boot'}")

    def feed(self, command: str, content: bytes) -> None:
        """Run a shell line of root's with ``content`` as its input."""
        subprocess.run([*self._ssh_command(), command], input=content, check=True, timeout=COMMAND_S)

    def console(self) -> str:
        """What kernel and QEMU said."""
        files = [self._folder / name for name in ("console.log", "qemu.log")]
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    def _command(self) -> list[str]:
        image = self._image.folder
        # writeback: what the guest's kernel has written outlives a kill of QEMU, and only that.
        drives = [(self.disk, "qcow2,cache=writeback"), *((path, "raw,readonly=on") for path in self._drives)]
        command = ["qemu-system-aarch64", *MACHINE, "-accel", "tcg,thread=multi,tb-size=512"]
        command += ["-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd")]
        command += ["-append", "console=ttyAMA0 root=/dev/vda rw quiet"]
        if self._device_tree is not None:
            command += ["-dtb", str(self._device_tree)]
        for number, (path, form) in enumerate(drives):
            command += ["-drive", f"file={path},if=none,id=disk{number},format={form}"]
            command += ["-device", f"virtio-blk-pci,drive=disk{number}"]
        forwards = [f"hostfwd=tcp:127.0.0.1:{self._ssh_port}-:22", f"hostfwd=tcp:127.0.0.1:{self.mqtt_port}-:1883"]
        command += ["-netdev", f"user,id=net,restrict=on,{','.join(forwards)}"]
        command += ["-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"]
        return [*command, "-display", "none", "-monitor", "none", "-serial", f"file:{self._folder}/console.log"]

    def _answers(self) -> bool:
        assert self._qemu is not None
        assert self._qemu.poll() is None, f"QEMU ended\n{self.console()[-4000:]}"
        try:
            return self._ssh("true", 60.0).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def _ssh(self, command: str, limit_s: float) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self._ssh_command(), command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit_s,
            check=False,
        )

    def _ssh_command(self) -> list[str]:
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=30"]
        command = ["ssh", "-q", "-i", str(self._image.folder / "key"), "-p", str(self._ssh_port)]
        return [*command, *(word for option in options for word in ("-o", option)), "root@127.0.0.1"]


def device_tree(path: Path, properties: dict[str, Sequence[str]]) -> Path:
    """QEMU's own with other texts at its root, such as a Jetson's ``model`` and ``compatible``."""
    machine = ["-M", f"virt,dumpdtb={path}", *MACHINE[2:]]
    subprocess.run(["qemu-system-aarch64", *machine, "-display", "none"], check=True, capture_output=True)
    for name, texts in properties.items():
        subprocess.run(["fdtput", "-t", "s", str(path), "/", name, *texts], check=True)
    return path
