#!/usr/bin/env bash
# Everything that must hold: ruff, mypy, pytest with coverage; from a fresh checkout and in one virtual environment.
#   bash tests/run.sh                    all but the long tests, which it names; under a quarter of an hour on two cores
#   bash tests/run.sh --all              those too (marker long); as root also those that mount disks of their own, and
#                                        those of an emulated board, which tests/system/board/run.sh runs alone
#   bash tests/run.sh tests/mqtt -q   the same set-up, then pytest with these arguments
# Needs Python 3.10 or newer with pip and venv; PYTHON names another interpreter, VENV another folder than .venv.
# As root it installs the Debian packages below; otherwise the tests that need an absent one say so and are skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
venv=${VENV:-.venv}
# mosquitto: a real broker; the gstreamer parts: a real RTSP server, and stand-ins for a Jetson's elements;
# libsystemd-dev, pkg-config: systemd-python builds; openssl: certificates for the TLS tests; systemd-container, dbus: a
# systemd of its own for the sandbox, mmdebstrap: a Debian of its own for the installer (--all); minisign: what it says itself;
# jq: a shell that signs a request.
packages=(mosquitto mosquitto-clients minisign jq openssl libsystemd-dev pkg-config gcc systemd-container dbus mmdebstrap
  libgstreamer1.0-dev
  gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
  gstreamer1.0-plugins-ugly gstreamer1.0-libav)

install_debian_packages() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
  dpkg-query -W -f '${Status}\n' "${packages[@]}" 2>/dev/null | grep -c '^install ok' | grep -qx "${#packages[@]}" && return 0
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
}

extras=test,demo,eval,supervision,bundles
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
  echo "run.sh: $("$python" --version 2>&1) is too old; set PYTHON to Python 3.10 or newer" >&2
  exit 1
}
# torch's small CPU wheel, which the pin in constraints.txt names, is for 3.11; elsewhere the pin means gigabytes.
if "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then extras+=,export; fi
if [ "$(uname -m)" = x86_64 ]; then extras+=,tensorrt-rtx,cuda13; fi
install_debian_packages
if command -v pkg-config >/dev/null && pkg-config --exists libsystemd; then extras+=,systemd; fi

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --prefer-binary \
  --constraint tests/constraints.txt --editable ".[$extras]"

# A test that stores a plan waits for the disk, 10 ms an fsync: where memory has room, it stores there.
has_room_in_memory() {
  [ "$(df --output=avail --block-size=1M /dev/shm 2>/dev/null | tail -n 1)" -ge 4096 ] 2>/dev/null &&
    ! grep -q ' /dev/shm [^ ]* [^ ]*noexec' /proc/mounts
}

arguments=("$@")
if [ "$*" = "" ] || [ "$*" = --all ]; then
  "$venv/bin/python" -m ruff check .
  "$venv/bin/python" -m ruff format --check .
  "$venv/bin/python" -m mypy
  # A file's tests stay in one process, for they share what is expensive to make.
  arguments+=(--numprocesses auto --maxprocesses 4 --dist loadfile --cov --cov-report=term:skip-covered)
fi
if has_room_in_memory; then
  folder=$(mktemp --directory /dev/shm/vajra-edge.XXXXXX)
  trap 'rm -rf "$folder"' EXIT
  arguments+=(--basetemp "$folder/tests")
fi
"$venv/bin/python" -m pytest "${arguments[@]}"
