#!/usr/bin/env bash
# Installs vajra-edge as a systemd service, from a checkout. Safe to run again: settings, weights and plans stay.
#   sudo bash deploy/install.sh                 install or upgrade, enable; starts once weights are in place
#   sudo bash deploy/install.sh --uninstall     remove service and program; settings and plans stay
#   sudo bash deploy/install.sh --uninstall --purge   remove those and the user too
# PREFIX moves the program (/opt/vajra-edge), PYTHON names the interpreter, EXTRAS adds pip extras ("torch,cuda12").
# DESTDIR installs below another root (images, tests): nothing is then started, no user is made.
# An upgrade is made beside what is there, synced, and put in its place in one step; a service that runs is restarted.
# Exit code 0: it is installed, on the disk, and what ran before runs the new version. Otherwise one line says why.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
prefix=${PREFIX:-/opt/vajra-edge}
python=${PYTHON:-python3}
root=${DESTDIR:-}
program=$root$prefix
made=$program.new
etc=$root/etc/vajra-edge
state=$root/var/lib/vajra-edge
unit=$root/etc/systemd/system/vajra-edge.service
sysusers=$root/usr/lib/sysusers.d/vajra-edge.conf

die() { echo "install.sh: $*" >&2; exit 1; }
say() { echo "install.sh: $*"; }
live() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

uninstall() {
  if live && systemctl cat vajra-edge.service >/dev/null 2>&1; then
    systemctl disable --quiet --now vajra-edge.service || die "it does not stop; see: systemctl status vajra-edge"
  fi
  rm -rf "$unit" "$sysusers" "$program" "$made" "$root/usr/local/bin/vajra-edge"
  if live; then systemctl daemon-reload; fi
  if [ "${1:-}" = --purge ]; then
    # rm follows no link, neither one in the place of a folder nor one inside it.
    rm -rf "$etc" "$state" "$root/var/cache/vajra-edge"
    if [ -z "$root" ] && id vajra-edge >/dev/null 2>&1; then userdel vajra-edge; fi
    say "removed, with settings, plans and user"
  else
    say "removed; settings in $etc and plans in $state stay (--purge takes them)"
  fi
}

# Whether the service is there for somebody: running, starting, or waiting for its next try.
runs() { live && [[ $(systemctl is-active vajra-edge.service 2>/dev/null) =~ ^(active|activating|reloading)$ ]]; }

# A file in its place in one step: a power cut leaves the old one or the new one, and never an empty one.
place() { # SOURCE TARGET MODE
  mkdir -p "$(dirname "$2")"
  install -m "$3" "$1" "$2.new"
  put "$2.new" "$2"
}

put() { # SOURCE TARGET, both in one folder
  [ -L "$1" ] || sync "$1"
  mv -fT "$1" "$2"
  sync "$(dirname "$2")"
}

# An environment counts as there when each file of its packages has the length that pip noted: one whose making was
# interrupted has no pip, and one that met a power cut has modules of no length.
whole() { # ENVIRONMENT
  [ -x "$1/bin/python" ] && "$1/bin/python" -I - "$1" 2>/dev/null <<'PY'
import sys
from importlib.metadata import distributions
from pathlib import Path
import pip
root = Path(sys.argv[1]).resolve()
for found in distributions(path=[path for path in sys.path if root in Path(path).resolve().parents]):
    for file in found.files or ():
        path = Path(file.locate())
        if ".." in file.parts or file.size is None:
            continue
        if not path.is_file() or path.stat().st_size != file.size:
            sys.exit(1)
PY
}

# In the folder beside: a copy of the environment that is there, by hard links, for pip replaces files and writes into none.
make_environment() {
  local options=()
  # A Jetson's TensorRT and its OpenCV (with GStreamer) are Debian packages: the environment must see them.
  if [ -e /etc/nv_tegra_release ]; then options+=(--system-site-packages); fi
  rm -rf "$made"
  if whole "$program"; then
    cp -al "$program" "$made" 2>/dev/null || { rm -rf "$made"; cp -a "$program" "$made"; }
  else
    "$python" -m venv "${options[@]}" "$made" || die "no environment can be made; install python3-venv, or set PYTHON"
  fi
}

install_packages() {
  local pip=("$made/bin/python" -m pip install --quiet --disable-pip-version-check --prefer-binary)
  if [ -e /etc/nv_tegra_release ] && "$made/bin/python" -c 'import cv2' 2>/dev/null; then
    # PyPI's OpenCV would hide JetPack's, which alone decodes in hardware; so take every requirement but that one.
    "${pip[@]}" --no-deps --upgrade .
    "$made/bin/python" - <<'PY' | xargs -d '\n' "${pip[@]}"
from importlib.metadata import requires
for line in requires("vajra-edge") or ():
    if "extra ==" not in line and not line.startswith("opencv"):
        print(line)
PY
    [ -z "${EXTRAS:-}" ] || "${pip[@]}" --no-deps ".[$EXTRAS]"
  else
    "${pip[@]}" --upgrade ".${EXTRAS:+[$EXTRAS]}"
  fi
  # Scripts name their interpreter by its path, which is another one once this folder has its name.
  { grep -rlIZ -- "$made" "$made/bin" "$made/pyvenv.cfg" || true; } | xargs -0 -r sed -i "s#$made\b#$prefix#g"
  "$made/bin/python" -I -m vajra_edge --version >/dev/null || die "the new version does not start; nothing was changed"
}

# An upgrade that the settings do not load in would end the service: it is found out before anything is replaced.
check_settings() {
  local environment; environment=$(systemctl show --property=Environment --value vajra-edge.service)
  env -i "$made/bin/python" -I - "$etc/config.toml" "$environment" <<'PY' \
    || die "the new version refuses the settings; nothing was changed, the old one runs on"
import os, shlex, sys
from pathlib import Path
from vajra_edge.config.settings import load
from vajra_edge.errors import VajraError
os.environ.update(word.split("=", 1) for word in shlex.split(sys.argv[2]) if "=" in word)
try:
    load(Path(sys.argv[1]))
except VajraError as error:
    sys.exit(f"install.sh: {error}")
PY
}

# Both names change in one step (renameat2), so that there is a program at every moment.
put_program() {
  sync -f "$made"
  "$made/bin/python" -I - "$made" "$program" <<'PY'
import sys
from pathlib import Path
from vajra_edge.durable import rename_over
rename_over(Path(sys.argv[1]), Path(sys.argv[2]))
PY
  rm -rf "$made"
  mkdir -p "$root/usr/local/bin"
  ln -sfn "$prefix/bin/vajra-edge" "$root/usr/local/bin/.vajra-edge.new"
  put "$root/usr/local/bin/.vajra-edge.new" "$root/usr/local/bin/vajra-edge"
}

install_user() {
  place systemd/vajra-edge.sysusers "$sysusers" 0644
  [ -z "$root" ] || return 0
  if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers vajra-edge.conf
  elif ! id vajra-edge >/dev/null 2>&1; then
    useradd --system --home-dir /var/lib/vajra-edge --shell /usr/sbin/nologin vajra-edge
    usermod --append --groups video,render vajra-edge
  fi
}

# A folder of ours whose parent is root's. What lies in its place may be a link that root made, to another disk.
own_folder() { # PATH OWNER MODE
  if [ -L "$1" ] && [ "$(stat -c %u "$1")" != 0 ]; then die "$1 is a link that root did not make; remove it"; fi
  mkdir -p "$1"
  chmod "$3" "$1"
  [ -n "$root" ] || chown "$2" "$1"
}

# Root changes nothing below the state folder: its owner may have put a link to any place there. What is to be made in
# it, its owner makes.
install_files() {
  own_folder "$etc" root:vajra-edge 0750
  own_folder "$etc/credentials" root:vajra-edge 0750
  own_folder "$state" vajra-edge:vajra-edge 0700
  if [ -n "$root" ]; then
    mkdir -p "$state/weights"
  else
    # No terminal goes with it: a shell of the service's user could type into root's.
    setsid --wait runuser -u vajra-edge -- mkdir -p /var/lib/vajra-edge/weights </dev/null \
      || die "$state/weights cannot be made by the user vajra-edge; see what lies there"
  fi
  if [ ! -e "$etc/config.toml" ]; then place deploy/config.example.toml "$etc/config.toml" 0640; fi
  if [ -z "$root" ]; then chown -h root:vajra-edge "$etc/config.toml"; fi
  local here; here=$(mktemp)
  sed "s#/opt/vajra-edge#$prefix#g" systemd/vajra-edge.service >"$here"
  place "$here" "$unit" 0644
  rm -f "$here"
  sync -f "$etc"
}

start() { # whether it ran before
  live || { say "installed below ${root:-a system without systemd}; not started"; return 0; }
  systemctl daemon-reload
  systemctl enable --quiet vajra-edge.service
  sync -f "$unit"
  if [ "$1" = yes ]; then
    systemctl restart vajra-edge.service || die "installed, but it does not start; see: journalctl -u vajra-edge"
    say "upgraded and restarted: $("$prefix/bin/vajra-edge" --version); follow it with: journalctl -fu vajra-edge"
  elif "$prefix/bin/vajra-edge" doctor --config "$etc/config.toml" --quiet; then
    systemctl restart vajra-edge.service || die "installed, but it does not start; see: journalctl -u vajra-edge"
    say "running; follow it with: journalctl -fu vajra-edge"
  else
    say "installed and enabled; put weights and cameras into $etc/config.toml, then: systemctl restart vajra-edge"
  fi
}

case "${1:-}" in
  --uninstall) shift; [ "$(id -u)" = 0 ] || die "must be root"; uninstall "${1:-}" ;;
  "")
    [ "$(id -u)" = 0 ] || die "must be root"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
      || die "$("$python" --version 2>&1) is too old; set PYTHON"
    mkdir -p "$(dirname "$program")"
    exec 9<"$(dirname "$program")"
    flock --nonblock 9 || die "another one installs below $(dirname "$program")"
    running=no
    if runs; then running=yes; fi
    make_environment
    install_packages
    if [ "$running" = yes ]; then check_settings; fi
    install_user
    install_files
    put_program
    start "$running"
    ;;
  *) die "unknown argument $1; see the head of this file" ;;
esac
