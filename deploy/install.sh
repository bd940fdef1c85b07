#!/usr/bin/env bash
# Installs vajra-edge as a systemd service, from a checkout. Safe to run again: settings, weights and plans stay.
#   sudo bash deploy/install.sh                 install or upgrade, enable; starts once weights are in place
#   sudo bash deploy/install.sh --uninstall     remove service and program; settings and plans stay
#   sudo bash deploy/install.sh --uninstall --purge   remove those and the user too
# PREFIX moves the program (/opt/vajra-edge), PYTHON names the interpreter, EXTRAS adds pip extras ("torch,cuda12").
# DESTDIR installs below another root (images, tests): nothing is then started, no user is made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
prefix=${PREFIX:-/opt/vajra-edge}
python=${PYTHON:-python3}
root=${DESTDIR:-}
etc=$root/etc/vajra-edge
state=$root/var/lib/vajra-edge
unit=$root/etc/systemd/system/vajra-edge.service
sysusers=$root/usr/lib/sysusers.d/vajra-edge.conf

die() { echo "install.sh: $*" >&2; exit 1; }
say() { echo "install.sh: $*"; }
live() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

uninstall() {
  if live; then systemctl disable --now vajra-edge.service 2>/dev/null || true; fi
  rm -rf "$unit" "$sysusers" "$root$prefix" "$root/usr/local/bin/vajra-edge"
  if live; then systemctl daemon-reload; fi
  if [ "${1:-}" = --purge ]; then
    rm -rf "$etc" "$state" "$root/var/cache/vajra-edge"
    if [ -z "$root" ] && id vajra-edge >/dev/null 2>&1; then userdel vajra-edge; fi
    say "removed, with settings, plans and user"
  else
    say "removed; settings in $etc and plans in $state stay (--purge takes them)"
  fi
}

install_program() {
  local options=()
  # A Jetson's TensorRT and its OpenCV (with GStreamer) are Debian packages: the environment must see them.
  if [ -e /etc/nv_tegra_release ]; then options+=(--system-site-packages); fi
  [ -x "$root$prefix/bin/python" ] || "$python" -m venv "${options[@]}" "$root$prefix"
  local pip=("$root$prefix/bin/python" -m pip install --quiet --disable-pip-version-check --prefer-binary)
  if [ -e /etc/nv_tegra_release ] && "$root$prefix/bin/python" -c 'import cv2' 2>/dev/null; then
    # PyPI's OpenCV would hide JetPack's, which alone decodes in hardware; so take every requirement but that one.
    "${pip[@]}" --no-deps --upgrade .
    "$root$prefix/bin/python" - <<'PY' | xargs -d '\n' "${pip[@]}"
from importlib.metadata import requires
for line in requires("vajra-edge") or ():
    if "extra ==" not in line and not line.startswith("opencv"):
        print(line)
PY
    [ -z "${EXTRAS:-}" ] || "${pip[@]}" --no-deps ".[$EXTRAS]"
  else
    "${pip[@]}" --upgrade ".${EXTRAS:+[$EXTRAS]}"
  fi
  mkdir -p "$root/usr/local/bin"
  ln -sfn "$prefix/bin/vajra-edge" "$root/usr/local/bin/vajra-edge"
}

install_user() {
  install -D -m 0644 systemd/vajra-edge.sysusers "$sysusers"
  [ -z "$root" ] || return 0
  if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers vajra-edge.conf
  elif ! id vajra-edge >/dev/null 2>&1; then
    useradd --system --home-dir /var/lib/vajra-edge --shell /usr/sbin/nologin vajra-edge
  fi
}

install_files() {
  mkdir -p "$etc/credentials" "$state/weights"
  chmod 0750 "$etc" "$etc/credentials" && chmod 0700 "$state"
  if [ -z "$root" ]; then
    chown root:vajra-edge "$etc" "$etc/credentials"
    chown vajra-edge:vajra-edge "$state" "$state/weights"
  fi
  if [ ! -e "$etc/config.toml" ]; then install -m 0640 deploy/config.example.toml "$etc/config.toml"; fi
  if [ -z "$root" ]; then chown root:vajra-edge "$etc/config.toml"; fi
  install -D -m 0644 systemd/vajra-edge.service "$unit"
  if [ "$prefix" != /opt/vajra-edge ]; then sed -i "s#/opt/vajra-edge#$prefix#g" "$unit"; fi
}

start() {
  live || { say "installed below ${root:-a system without systemd}; not started"; return 0; }
  systemctl daemon-reload
  systemctl enable --quiet vajra-edge.service
  if "$prefix/bin/vajra-edge" doctor --config "$etc/config.toml" --quiet; then
    systemctl restart vajra-edge.service
    say "running; follow it with: journalctl -fu vajra-edge"
  else
    say "installed and enabled; put weights and cameras into $etc/config.toml, then: systemctl restart vajra-edge"
  fi
}

case "${1:-}" in
  --uninstall) shift; [ "$(id -u)" = 0 ] || die "must be root"; uninstall "${1:-}" ;;
  "")
    [ "$(id -u)" = 0 ] || die "must be root"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || die "$("$python" --version 2>&1) is too old; set PYTHON"
    install_user
    install_program
    install_files
    start
    ;;
  *) die "unknown argument $1; see the head of this file" ;;
esac
