"""deploy/install.sh where something goes wrong on the way: a line that says what to do, and the next run mends it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import booted
import installed_roots as roots
import pytest
from certificates import make_certificates
from ports import free_port
from waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
RELEASE = f"{sys.version_info.major}.{sys.version_info.minor}"

pytestmark = [
    pytest.mark.long("installs for real, many times, as root; tests/deploy tries the installer's parts always"),
    pytest.mark.skipif(bool(booted.absent()), reason=f"absent here: {booted.absent()}"),
    pytest.mark.timeout(3600),  # an installation takes half a minute, and ten times that beside other tests
]


@pytest.fixture
def root(pattern, tmp_path):
    """One in which the program is installed."""
    made = tmp_path / "root"
    subprocess.run(["cp", "-a", str(pattern), str(made)], check=True)
    return made


def is_whole(root: Path) -> bool:
    program = root / "opt/vajra-edge"
    asked = [str(program / "bin/python"), "-I", str(ROOT / "deploy/environment.py"), "whole", str(program), RELEASE]
    return subprocess.run(asked, check=False).returncode == 0


def assert_ended_with(ended: subprocess.CompletedProcess[str], *words: str) -> None:
    """With an exit code, and the last line says why."""
    assert ended.returncode == 1, ended.stdout + ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("install.sh: "), ended.stderr
    assert [word for word in words if word not in last] == [], ended.stderr


def assert_nothing_is_beside(root: Path) -> None:
    assert [path.name for path in (root / "opt").iterdir()] in ([], ["vajra-edge"])


@contextlib.contextmanager
def mounted(target: Path, options: str) -> Iterator[None]:
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(target)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(target)], check=True)


def test_a_disk_that_fills_at_any_point_is_named_and_with_room_the_next_run_ends_well(wheels, tmp_path):
    root = tmp_path / "root"
    with mounted(root, "size=18m"):
        for size in ("18m", "80m", "300m"):
            subprocess.run(["mount", "-o", f"remount,size={size}", str(root)], check=True)
            assert_ended_with(roots.install(root, wheels), "no room is left: ", " MB free", "nothing was replaced")
            assert_nothing_is_beside(root)
        subprocess.run(["mount", "-o", "remount,size=3g", str(root)], check=True)
        ended = roots.install(root, wheels)
        assert ended.returncode == 0, ended.stderr
        assert is_whole(root)


def test_an_upgrade_on_a_full_disk_leaves_the_program_that_was_there(pattern, wheels, tmp_path):
    root = tmp_path / "root"
    with mounted(root, "size=3g"):
        subprocess.run(["cp", "-a", f"{pattern}/.", str(root)], check=True)
        with (root / "ballast").open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, shutil.disk_usage(root).free)
        assert_ended_with(roots.install(root, wheels), "nothing was replaced")
        assert_nothing_is_beside(root)
        assert is_whole(root)
        (root / "ballast").unlink()
        ended = roots.install(root, wheels)
        assert ended.returncode == 0, ended.stderr


def test_a_disk_that_forbids_to_execute_is_refused_before_anything_is_downloaded(wheels, tmp_path):
    root = tmp_path / "root"
    with mounted(root / "opt", "noexec"):
        assert_ended_with(roots.install(root, wheels), "noexec", "set PREFIX")
        assert_nothing_is_beside(root)


def test_a_disk_mounted_where_the_program_belongs_is_refused_and_a_folder_on_it_is_taken(wheels, tmp_path):
    root = tmp_path / "root"
    disk = root / "opt/vajra-edge"
    with mounted(disk, "size=3g"):
        assert_ended_with(
            roots.install(root, wheels), "is where a disk is mounted", "set PREFIX to a folder on that disk"
        )
        ended = roots.install(root, wheels, PREFIX="/opt/vajra-edge/program")
        assert ended.returncode == 0, ended.stderr
        assert [path.name for path in disk.iterdir()] == ["program"]


def test_a_program_below_an_overlay_is_upgraded(pattern, wheels, tmp_path):
    """As on a board whose disk is protected by one: a folder from below cannot be renamed there."""
    with roots.overlay(pattern, tmp_path) as machine:
        ended = roots.install(machine.root, wheels)
        assert ended.returncode == 0, ended.stderr
        assert is_whole(machine.root)
        assert_nothing_is_beside(machine.root)


def test_without_a_home_a_locale_and_room_for_temporary_files_it_is_installed_from_any_path(root, wheels, tmp_path):
    """As by cloud-init, and with sh: what an image is provisioned with."""
    checkout = tmp_path / "with spaces and \N{LATIN SMALL LETTER A WITH DIAERESIS}"
    for name in ("deploy", "systemd", "vajra_edge"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, checkout / name)
    told = {"HOME": "", "LC_ALL": "POSIX", "LANG": "de_DE.ISO-8859-1", "TMPDIR": "/nonexistent/tmp"}
    ended = roots.install(root, wheels, run_by="sh", script=checkout / "deploy/install.sh", **told)
    assert ended.returncode == 0, ended.stderr
    assert is_whole(root)


ASTRAY = {
    "PIP_USER": "1",
    "PIP_TARGET": "/nonexistent",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "PIP_CONSTRAINT": "/nonexistent/constraints.txt",
    "PYTHONPATH": "/nonexistent:/usr/lib/python3/dist-packages",
    "PYTHONINSPECT": "1",
    "PYTHONWARNINGS": "error",
    "PYTHONDONTWRITEBYTECODE": "1",
}
PIP_CONF = """
[global]
no-binary = :all:
dry-run = true
python = /usr/bin/python3
progress-bar = there is none such
break-system-packages = true
[install]
root = /nonexistent
user = true
platform = manylinux2014_aarch64
"""


def test_what_the_caller_says_to_pip_and_python_does_not_lead_it_elsewhere(wheels, tmp_path):
    home = tmp_path / "home"
    (home / ".config/pip").mkdir(parents=True)
    (home / ".config/pip/pip.conf").write_text(PIP_CONF)
    (home / ".pydistutils.cfg").write_text("[install]\nprefix = /nonexistent\n")
    ended = roots.install(tmp_path / "root", wheels, HOME=str(home), XDG_CONFIG_HOME="", **ASTRAY)
    assert ended.returncode == 0, ended.stderr
    assert is_whole(tmp_path / "root")


def test_a_proxy_that_refuses_is_told_with_the_way_to_name_another(tmp_path):
    proxy = f"http://127.0.0.1:{free_port()}"
    astray = {
        "PIP_NO_INDEX": "",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_RETRIES": "1",
        "https_proxy": proxy,
        "no_proxy": "",
    }
    ended = roots.install(tmp_path / "root", tmp_path, PIP_INDEX_URL="https://me:word@index.invalid/simple", **astray)
    assert "ProxyError" in ended.stderr
    assert_ended_with(
        ended, "Its index is index.invalid/simple", "sudo https_proxy=http://HOST:PORT bash deploy/install.sh"
    )
    assert not (tmp_path / "root/opt/vajra-edge").exists()


class Index:
    """A package index on the loopback, whose line breaks off within one file while ``broken`` names it."""

    def __init__(self, wheels: Path) -> None:
        self.wheels = {path.name: path for path in wheels.glob("*.whl")}
        self.broken = ""
        self.begun: list[str] = []
        self.sent: set[str] = set()

    def page(self, package: str) -> bytes:
        found = [name for name in self.wheels if name.partition("-")[0].lower().replace("_", "-") == package]
        links = "".join(f'<a href="/files/{name}">{name}</a>' for name in found)
        return f"<!DOCTYPE html><html><body>{links}</body></html>".encode()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        folder, name = request.path.strip("/").split("/")
        content = self.page(name) if folder == "simple" else self.wheels[name].read_bytes()
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.send_header("Content-Type", "text/html" if folder == "simple" else "application/octet-stream")
        if folder == "files":
            request.send_header("Cache-Control", "max-age=31536000, immutable")
            self.begun.append(name)
        request.end_headers()
        whole = not (self.broken and name.startswith(self.broken))
        request.wfile.write(content if whole else content[: len(content) // 2])
        if not whole:
            request.close_connection = True
        elif folder == "files":
            self.sent.add(name)

    @contextlib.contextmanager
    def listening(self, certificates: Path) -> Iterator[str]:
        """Its address; with TLS, for pip keeps nothing that came without."""
        answer = self.answer

        class Request(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
        with ThreadingHTTPServer(("127.0.0.1", 0), Request) as server:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            serving = threading.Thread(target=server.serve_forever, daemon=True)
            serving.start()
            try:
                yield f"https://127.0.0.1:{server.server_port}/simple"
            finally:
                server.shutdown()
                serving.join()


def test_a_line_that_breaks_off_is_told_and_the_next_run_downloads_the_rest(wheels, tmp_path):
    index, root = Index(wheels), tmp_path / "root"
    index.broken = "typing_extensions"
    make_certificates(tmp_path)
    online = {"PIP_NO_INDEX": "", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull, "no_proxy": "127.0.0.1"}
    online |= {"PIP_CERT": str(tmp_path / "ca.crt"), "REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": ""}  # these count more
    with index.listening(tmp_path) as address:
        ended = roots.install(root, wheels, PIP_INDEX_URL=address, **online)
        assert_ended_with(ended, "nothing was replaced", "a line that broke off (run this again)")
        assert_nothing_is_beside(root)
        had, index.broken, index.begun = set(index.sent), "", []
        ended = roots.install(root, wheels, PIP_INDEX_URL=address, **online)
    assert ended.returncode == 0, ended.stderr
    assert had
    assert had & set(index.begun) == set()
    assert not (root / "var/cache/vajra-edge").exists()


def test_an_interpreter_whose_venv_is_broken_is_told_with_the_package_that_mends_it(wheels, tmp_path):
    hidden = f'mount -t tmpfs tmpfs /usr/lib/python{RELEASE}/ensurepip && exec "$@"'
    root = tmp_path / "root"
    ended = roots.install(root, wheels, before=("unshare", "--mount", "bash", "-c", hidden, "-"))
    assert_ended_with(ended, f"apt-get install python{RELEASE}-venv")
    assert_nothing_is_beside(root)


def kill_when(reached: Callable[[], bool], root: Path, wheels: Path) -> None:
    """Start it, and kill it and all that it started when something is so."""
    told = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PYTHON": f"/usr/bin/python{RELEASE}"}
    environment = {**os.environ, **told, "DESTDIR": str(root)}
    command = ["bash", str(ROOT / "deploy/install.sh")]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            wait_for(lambda: reached() or process.poll() is not None, limit_s=900.0, step_s=0.001)
            assert process.poll() is None, "it ended before that"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


MOMENTS = (
    "opt/vajra-edge.new/bin/python",
    "opt/vajra-edge.new/lib/python3*/site-packages/pip",
    "opt/vajra-edge.new/lib/python3*/site-packages/numpy",
    "opt/vajra-edge.work/vajra_edge-*.whl",
    booted.UNIT[1:],
)


def test_killed_at_one_moment_after_the_other_the_next_run_mends_it(wheels, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for moment in MOMENTS:
        kill_when(lambda moment=moment: any(root.glob(moment)), root, wheels)
        assert not (root / "opt/vajra-edge").exists() or is_whole(root)
    ended = roots.install(root, wheels)
    assert ended.returncode == 0, ended.stderr
    assert is_whole(root)
    assert_nothing_is_beside(root)


def test_an_upgrade_that_is_killed_harms_nothing_of_the_program_that_is_there(root, wheels):
    for moment in ("opt/vajra-edge.new", "opt/vajra-edge.work/source", "opt/vajra-edge.work/vajra_edge-*.whl"):
        kill_when(lambda moment=moment: any(root.glob(moment)), root, wheels)
        assert is_whole(root)
    ended = roots.install(root, wheels)
    assert ended.returncode == 0, ended.stderr
    assert is_whole(root)
    assert_nothing_is_beside(root)
