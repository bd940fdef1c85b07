#!/usr/bin/env bash
# Installs vajra-edge as a systemd service, from a checkout. Safe to run again: settings, weights and plans stay.
#   sudo bash deploy/install.sh                 install or upgrade, enable; starts once weights are in place
#   sudo bash deploy/install.sh --uninstall     remove service and program; settings and plans stay
#   sudo bash deploy/install.sh --uninstall --purge   remove those and the user too
# PREFIX moves the program (/opt/vajra-edge), PYTHON names the interpreter, EXTRAS adds pip extras ("torch,systemd").
# DESTDIR installs below another root (images, tests): nothing is then started, no user is made.
# An upgrade is made beside what is there, tried, synced, and put in its place in one step; a service that runs is
# restarted. Whatever state the program is in, running this again mends it.
# Exit code 0: it is installed, on the disk, and what ran before is seen serving with the new version. 3: installed, but
# the service that ran does not serve. Otherwise nothing was replaced, unless the line that says why says so.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"   # started with sh
set -euo pipefail
umask 022        # what a stricter one makes, the service's user could not read
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]:-}")/.."
prefix=${PREFIX:-/opt/vajra-edge}
python=${PYTHON:-python3}
# What the caller's shell says to Python leads it elsewhere: PYTHONPATH, PYTHONHOME, PYTHONPYCACHEPREFIX ...
unset "${!PYTHON@}"
export PYTHONNOUSERSITE=1 PATH=$PATH:/usr/sbin:/sbin   # su leaves out where useradd and runuser are
export ORT_DISABLE_TELEMETRY=1   # ONNX Runtime leaves an identifier in root's home otherwise, when it is tried
export LC_ALL=C.UTF-8   # the words of an error are looked at
extras=${EXTRAS:-}
root=${DESTDIR:-}
program=$root$prefix
# Who moved the program to another disk has left a link to it.
if [ -L "$program" ] && [ -d "$program" ]; then program=$(readlink -f "$program"); fi
made=$program.new
work=$program.work   # and not in /tmp, which may be small or full, or forbid to execute
etc=$root/etc/vajra-edge
state=$root/var/lib/vajra-edge
cache=$root/var/cache/vajra-edge
unit=$root/etc/systemd/system/vajra-edge.service
sysusers=$root/usr/lib/sysusers.d/vajra-edge.conf
release_file=/etc/nv_tegra_release
too_little_mb=32 # pip alone takes 13
checks_s=3600    # of which an emulated board takes two minutes, and more where its machine is busy
serves_s=180     # a plan of 100 MB is loaded in a tenth of that on the slowest board that was tried
step_s=900       # a build that says nothing new for so long is not waited for; libraries alone take a slow board minutes
builds_s=7200    # nor is a longer one: [engine] build_timeout_s ends it by then

told=""         # whether a line has said why this ends
left="nothing was replaced"
said=""
heard=0

die() { echo "install.sh: $*" >&2; told=yes; exit 1; }
say() { echo "install.sh: $*"; }
live() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

# Runs a command; what it says is shown, and kept in $said, and its exit code in $heard.
hear() {
  heard=0
  { said=$("$@" 2>&1 | while IFS= read -r line || [ -n "$line" ]; do
    printf '%s\n' "$line" >&3
    printf '%s\n' "$line"
  done) || heard=$?; } 3>&2
  return $heard
}

# Ends with that line, or with the likelier one: who is killed says nothing, an image that is read-only has no room
# besides, and the venv module keeps to itself that a disk is full.
fail() {
  if [ "$heard" = 137 ]; then
    die "it was killed: memory ran out, most likely ($(free_memory_mb) MB are free); end other programs or add swap," \
      "then run this again; $left"
  fi
  if [[ $said =~ "Read-only file system" ]]; then
    die "the disk of $program is read-only; mount it with rw, or set PREFIX to a folder of another; $left"
  fi
  if [[ $said =~ "No space left on device"|"Disk quota exceeded" ]] || [ "$(free_mb "$program")" -lt "$too_little_mb" ]; then
    die "no room is left: the disk of $program has $(free_mb "$program") MB free, that of $cache $(free_mb "$cache") MB;" \
      "make some, then run this again; $left"
  fi
  die "$*"
}

free_mb() { # PATH, of which the beginning is there
  local path=$1
  while [ ! -e "$path" ]; do path=$(dirname "$path"); done
  df --output=avail --block-size=1M "$path" | tail -n 1 | tr -d ' '
}

free_memory_mb() { sed -n 's/^MemAvailable: *\([0-9]*\)[0-9][0-9][0-9] kB$/\1/p' /proc/meminfo; }

# However it ends: nothing stays beside the program, and a line says what to do.
ended() {
  local code=$?
  rm -rf "$work" "$made"
  [ $code = 0 ] || [ -n "$told" ] || echo "install.sh: broken off (exit code $code), see above; $left; run it again" >&2
}

# A folder that holds anything but a Python environment is not ours to replace or remove: PREFIX may be mistyped.
check_prefix() {
  [[ $prefix =~ ^(/[A-Za-z0-9._-]+)+$ ]] || die "PREFIX=$prefix must be an absolute path of letters, digits, . _ and -"
  [ -d "$program" ] || return 0
  ! mountpoint -q "$program" ||
    die "$program is where a disk is mounted, so that nothing can be put in its place; set PREFIX to a folder on that disk"
  local entry
  while read -r entry; do
    case $entry in
      "" | bin | include | lib | lib64 | share | pyvenv.cfg) ;;
      *) die "$program holds $entry, which is no part of the program; move it, or set PREFIX" ;;
    esac
  done <<<"$(ls -A "$program")"
  [ -e "$program/pyvenv.cfg" ] || [ ! -e "$program/lib" ] || compgen -G "$program/lib/python3*" >/dev/null ||
    die "$program is no Python environment; set PREFIX to a folder of its own"
}

uninstall() {
  if live && systemctl cat vajra-edge.service >/dev/null 2>&1; then
    systemctl disable --quiet --now vajra-edge.service || die "it does not stop; see: systemctl status vajra-edge"
  fi
  rm -rf "$unit" "$unit.new" "$unit.d/csi.conf" "$sysusers" "$program" "$made" "$work" "$root/usr/local/bin/vajra-edge" "$cache"
  [ ! -L "$root$prefix" ] || rm -f "$root$prefix"
  if [ "${1:-}" = --purge ]; then
    # rm follows no link, neither one in the place of a folder nor one inside it.
    rm -rf "$etc" "$state" "$unit.d"
    if [ -z "$root" ] && id vajra-edge >/dev/null 2>&1; then userdel vajra-edge; fi
    say "removed, with settings, plans and user"
  else
    say "removed; settings in $etc and plans in $state stay (--purge takes them)"
  fi
  rmdir "$unit.d" 2>/dev/null || true
  if live; then systemctl daemon-reload; fi
}

# Jetson Linux, like 36.4.3: from the file that NVIDIA's image has, or where that is lost from the package it belongs to.
l4t() {
  local text
  text=$(head -c 4096 "$release_file" 2>/dev/null | tr -d '\0') || true
  if [[ $text =~ R([0-9]+)\ \(release\),\ REVISION:\ ([0-9]+(\.[0-9]+)*) ]]; then
    echo "${BASH_REMATCH[1]}.${BASH_REMATCH[2]}"
  else
    dpkg-query -W -f '${Version}' nvidia-l4t-core 2>/dev/null | sed 's/-.*//' || true
  fi
}

on_board() { [ -e "$release_file" ] || [ -n "$(l4t)" ]; }

# What is too old is refused in so many words, before the interpreter's age is found wanting.
check_board() {
  on_board || return 0
  local release major minor jetpack
  release=$(l4t)
  [[ $release =~ ^[0-9]+\.[0-9] ]] ||
    die "this is a Jetson, but $release_file does not tell its release; apt-get install --reinstall nvidia-l4t-core"
  IFS=. read -r major minor _ <<<"$release"
  case $major in
    36) jetpack="JetPack 6.0 (L4T $release, TensorRT 8.6)"; [ "$minor" -lt 4 ] || jetpack="" ;;
    35) jetpack="JetPack 5 (L4T $release, TensorRT 8.5)" ;;
    *) jetpack="JetPack of L4T $release"; [ "$major" -lt 36 ] || jetpack="" ;;
  esac
  [ -z "$jetpack" ] || die "$jetpack is not supported; it takes JetPack 6.1 (L4T 36.4, TensorRT 10.3) or newer, best 7.2"
  case $major.$minor in
    36.[45] | 39.*) ;;
    *) say "L4T $release is none of those that this version was made for (36.4, 36.5 and 39.2)" ;;
  esac
}

# Prints the interpreter's release, like 3.10.
check_python() {
  local found
  found=$("$python" -I -c 'import os, sys; print("%d.%d" % sys.version_info[:2], os.path.realpath(sys.executable))' 2>&1) ||
    die "$python cannot be run (${found##*$'\n'}); apt-get install python3 python3-venv, or set PYTHON"
  [[ $found =~ ^3\.[1-9][0-9]+\  ]] || die "Python ${found%% *} is too old; set PYTHON to Python 3.10 or newer"
  case ${found#* } in
    /home/* | /root/* | /run/user/* | /tmp/* | /var/tmp/*)
      [ -n "$root" ] || die "the service cannot see ${found#* }, for its sandbox hides that folder; set PYTHON=/usr/bin/python3" ;;
  esac
  echo "${found%% *}"
}

check_extras() {
  local extra known
  known=$(sed -n '/^\[project.optional-dependencies\]/,/^\[project.scripts\]/s/^\([a-z0-9-]*\) = .*/\1/p' pyproject.toml)
  for extra in ${extras//,/ }; do
    grep -qx -- "$extra" <<<"$known" || die "EXTRAS=$extras: there is no extra $extra; known are:" $known
  done
}

# The folders in which the system's interpreter finds packages. Debian's come first: JetPack's TensorRT and OpenCV, and
# PyGObject, through which GStreamer runs, are Debian's, and what pip put beside them (/usr/local) must not hide them.
# Nobody's home is among them.
system_packages() {
  "$python" -I -c 'import sys
found = [path for path in sys.path if path.endswith(("dist-packages", "site-packages"))]
print(*sorted(found, key=lambda path: "/local/" in path), sep="\n")'
}

system_opencv() { # of the folders that are read from standard input
  "$python" -I -c 'import sys
from importlib.machinery import PathFinder
found = PathFinder.find_spec("cv2", sys.stdin.read().split())
print(found.origin if found and found.origin else "")'
}

# Whether the service is there for somebody: running, starting, or waiting for its next try.
runs() { live && [[ $(systemctl is-active vajra-edge.service 2>/dev/null) =~ ^(active|activating|reloading)$ ]]; }

# A file in its place in one step: a power cut leaves the old one or the new one, and never an empty one.
place() { # SOURCE TARGET MODE
  mkdir -p "$(dirname "$2")"
  rm -rf "$2.new"
  install -m "$3" "$1" "$2.new"
  put "$2.new" "$2"
}

put() { # SOURCE TARGET, both in one folder
  [ -L "$1" ] || sync "$1"
  if [ -d "$2" ] && [ ! -L "$2" ]; then rmdir "$2" || die "$2 is a folder; move it"; fi
  mv -fT "$1" "$2"
  sync "$(dirname "$2")"
}

# An environment counts as there when each file of its packages is what pip noted: one whose making was interrupted has
# no pip, one that met a power cut has modules of no length or full of zeros, and one whose interpreter is gone, or is of
# another release by now, does not answer. A good one must not be thrown away because the board is slow: the limit is only
# for what never ends.
whole() { # ENVIRONMENT RELEASE
  [ -x "$1/bin/python" ] && timeout "$checks_s" "$1/bin/python" -I deploy/environment.py whole "$1" "$2" 2>/dev/null
}

# In the folder beside: a copy of the environment that is there, by hard links, for pip replaces files and writes into none.
make_environment() { # RELEASE
  rm -rf "$made"
  if whole "$program" "$1"; then
    cp -al "$program" "$made" 2>/dev/null || { rm -rf "$made"; hear cp -a "$program" "$made" || fail "see above; $left"; }
    rm -f "$made/pyvenv.cfg" && sed 's/^\(include-system-site-packages = \).*/\1false/' "$program/pyvenv.cfg" >"$made/pyvenv.cfg"
    rm -f "$made"/lib/python3*/site-packages/jetpack.pth
  else
    hear "$python" -m venv "$made" || fail "no environment can be made; apt-get install python$1-venv, or set PYTHON"
    "$made/bin/python" -I -m pip --version >/dev/null || die "the environment has no pip; apt-get install python$1-venv"
  fi
}

# What was downloaded stays until it is installed: a line that breaks off every ten minutes gets there too.
pip() { "$made/bin/python" -I -m pip --disable-pip-version-check --quiet --cache-dir "$cache/pip" "$@"; }

download() { # LOCK; the rest are pip's arguments
  local lock=$1 first index=""
  shift
  read -r first <"$lock"
  if ! hear pip install --require-hashes --requirement "$lock" "$@"; then
    # Who brings the wheels along needs no certificate, and no right clock for it.
    if [ -z "${PIP_NO_INDEX:-}" ] && [[ $first =~ resolved\ ([0-9-]+) ]] && [[ $(date -u +%F) < ${BASH_REMATCH[1]} ]]; then
      die "the clock says $(date -u +%F), which is before this version was made, so that certificates count as not yet" \
        "valid; set it (timedatectl set-time, or wait for NTP), then run this again; nothing was replaced"
    fi
    # A mirror that pip.conf names may lack a wheel; its password is not told.
    if [ -n "${PIP_INDEX_URL:-}" ]; then
      index="Its index is ${PIP_INDEX_URL##*@}, by PIP_INDEX_URL or a pip.conf (PIP_CONFIG_FILE=/dev/null leaves those out). "
    fi
    # Older pips take what came of a line that breaks off for the whole file, and say that someone may have tampered.
    if [[ $said == *"DO NOT MATCH THE HASHES"* ]]; then
      index="What came is not what the lock names: a line that broke off (run this again), or another file. $index"
    fi
    fail "the packages of $lock cannot be installed, see above; nothing was replaced. ${index}Behind a proxy:" \
      "sudo https_proxy=http://HOST:PORT bash deploy/install.sh; without a network, with the wheels of $locks:" \
      "see deploy/docs/operations.md"
  fi
}

# Of what PIP_ variables and pip.conf say counts where packages come from. All else, as user, target, no-binary or
# dry-run, would lead pip elsewhere.
keep_sources() {
  local kept
  "$made/bin/python" -I deploy/environment.py sources >"$work/sources" || die "$left"
  mapfile -d "" -t kept <"$work/sources"
  unset "${!PIP_@}"
  export PIP_CONFIG_FILE=/dev/null PIP_NO_INPUT=1 "${kept[@]}"
}

say_size() { # LOCK
  local first
  read -r first <"$1"
  if [[ $first =~ ([0-9]+)\ wheels,\ ([0-9]+)\ MB ]]; then
    say "$(basename "$1" .lock): ${BASH_REMATCH[1]} packages, at most ${BASH_REMATCH[2]} MB to download"
  fi
}

# The locks of what EXTRAS names; what else it brings is not locked, and fits them.
extra_locks() { # BEGINNING OF THEIR NAMES
  local extra
  for extra in ${extras//,/ }; do
    [ "$extra" != export ] || extra=torch   # which is a part of it
    [ ! -e "$1-$extra.lock" ] || echo "$1-$extra.lock"
  done | sort -u
}

# The lock first, then our wheel alone: pip takes no folder where hashes are required.
install_packages() { # RELEASE
  local base lock each more system="" opencv=""
  base=deploy/locks/$(uname -m)-cp${1/./}
  if on_board; then
    system=$(system_packages)
    opencv=$(system_opencv <<<"$system")
  fi
  lock=$base${opencv:+-system-opencv}.lock
  [ -e "$lock" ] || die "there is no $lock; set PYTHON to an interpreter for which there is one"
  more=$(extra_locks "$base")
  locks=$(echo $lock $more)   # all that this machine needs, on one line
  for each in "$lock" $more; do say_size "$each"; done
  download "$lock"
  install_product
  if [ -n "$extras" ]; then install_extras "$lock" $more; fi
  if [ -n "$opencv" ]; then
    # PyPI's, which an extra or an older release of this script brought, would hide the system's.
    pip uninstall --yes opencv-python opencv-python-headless opencv-contrib-python opencv-contrib-python-headless 2>/dev/null
  fi
  if [ -n "$system" ]; then echo "$system" >"$(echo "$made"/lib/python3*/site-packages)/jetpack.pth"; fi
  check_environment "$system"
}

# From a copy: building writes beside what it reads, and what an older version left there would get into the wheel.
install_product() {
  mkdir "$work/source"
  cp -rL pyproject.toml README.md LICENSE vajra_edge "$work/source"
  find "$work/source" -name __pycache__ -prune -exec rm -rf {} +
  hear pip wheel --no-deps --no-build-isolation --wheel-dir "$work" "$work/source" ||
    fail "our own wheel cannot be built, see above; $left"
  hear pip install --no-deps --no-index --force-reinstall "$work"/vajra_edge-*.whl ||
    fail "our own wheel cannot be installed, see above; $left"
}

install_extras() { # LOCKS, of which the first is installed already
  local pins=$work/pins.txt wanted=$work/wanted.txt
  sed -n 's/^\([^#]*==[^ ]*\) .*/\1/p' "$@" >"$pins"
  "$made/bin/python" -I deploy/environment.py requires ${extras//,/ } >"$wanted"
  shift
  local lock
  for lock in "$@"; do download "$lock"; done
  hear pip install --prefer-binary --constraint "$pins" --requirement "$wanted" ||
    fail "EXTRAS=$extras cannot be installed, see above; nothing was replaced"
}

# Tried before it replaces anything, as the service will find it.
check_environment() { # SYSTEM'S FOLDERS
  # Scripts name their interpreter by its path, which is another one once this folder has its name.
  { grep -rlIZ -- "$made" "$made/bin" "$made/pyvenv.cfg" || true; } | xargs -0 -r sed -i "s#$made\b#$prefix#g"
  "$made/bin/python" -I deploy/environment.py imports $1 || die "nothing was replaced"
  on_board || return 0
  "$made/bin/python" -I -c 'import tensorrt' 2>/dev/null ||
    say "TensorRT's Python package cannot be imported: engines run on the CPU until apt-get install python3-libnvinfer"
  local absent
  absent=$("$made/bin/python" -I -c 'from vajra_edge.capture.sources.appsink import why_no_gobject
print(why_no_gobject())' 2>/dev/null) || absent="PyGObject with GStreamer ends its process"
  [ -z "$absent" ] ||
    say "$absent: cameras are decoded by the CPU, and csi: cannot be opened, until" \
      "apt-get install python3-gi gir1.2-gst-plugins-base-1.0"
}

# The daemon that has a Jetson's CSI cameras.
has_argus() { compgen -G "$root/*/systemd/system/nvargus-daemon.service" || compgen -G "$root/*/*/systemd/system/nvargus-daemon.service"; } >/dev/null

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
  # A file, or a link to nowhere, has this name.
  if [ ! -d "$program" ]; then rm -f "$program"; fi
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
  sed "s#/opt/vajra-edge#$prefix#g" systemd/vajra-edge.service >"$work/unit"
  place "$work/unit" "$unit" 0644
  if has_argus; then place systemd/vajra-edge-csi.conf "$unit.d/csi.conf" 0644; else rm -f "$unit.d/csi.conf"; fi
  sync -f "$etc"
}

# How far a plan is that has to come before it serves, of what status says; empty where none is on its way.
progress_of() { # STATUS
  if [[ $1 =~ building\ +[0-9a-f]{12}\ ([0-9]+%\ \([a-z]+) ]]; then
    echo "built, ${BASH_REMATCH[1]})"
  elif [[ $1 =~ loading\ +[0-9a-f]{12} ]]; then
    echo loaded
  fi
}

# A restart ends once the daemon hears; that it serves, it says itself. Each step of a build earns it more time.
await_serving() {
  local answer="" progress="" before="" blocked=0 last=$((SECONDS + builds_s)) until=$((SECONDS + serves_s))
  while [ $SECONDS -lt $until ] && [ $blocked -lt 10 ]; do
    if answer=$("$prefix/bin/vajra-edge" status --config "$etc/config.toml" 2>&1); then return; fi
    [ "$(systemctl is-active vajra-edge.service)" != failed ] || break
    # Blocked is what waits for somebody: nothing comes of waiting for it.
    if [[ $answer == *blocked* ]]; then blocked=$((blocked + 1)); fi
    progress=$(progress_of "$answer")
    if [ -n "$progress" ] && [ "$progress" != "$before" ]; then
      [ -n "$before" ] || say "restarted; its plan is being $progress; waiting for that, $((builds_s / 60)) minutes at the most"
      until=$((SECONDS + step_s < last ? SECONDS + step_s : last)) before=$progress
    fi
    sleep $((${#progress} > 0 ? 5 : 1))   # each question is a program of its own, which a slow board lacks for the build
  done
  echo "$answer" | head -n 3 >&2
  told=yes
  echo "install.sh: upgraded and restarted, but it does not serve; see: vajra-edge status, journalctl -u vajra-edge" >&2
  exit 3
}

start() { # whether it ran before
  live || { say "installed below ${root:-a system without systemd}; not started"; return 0; }
  systemctl daemon-reload
  systemctl enable --quiet vajra-edge.service
  sync -f "$unit"
  if [ "$1" = yes ]; then
    systemctl restart vajra-edge.service || die "installed, but it does not start; see: journalctl -u vajra-edge"
    await_serving
    say "upgraded, restarted and serving: $("$prefix/bin/vajra-edge" --version); follow it with: journalctl -fu vajra-edge"
  elif "$prefix/bin/vajra-edge" doctor --config "$etc/config.toml" --quiet; then
    systemctl restart vajra-edge.service || die "installed, but it does not start; see: journalctl -u vajra-edge"
    say "running; follow it with: journalctl -fu vajra-edge"
  else
    say "installed and enabled; put weights and cameras into $etc/config.toml, then: systemctl restart vajra-edge"
  fi
}

lock() {
  mkdir -p "${root:-/}"
  exec 9<"${root:-/}"
  flock --nonblock 9 || die "another install.sh is at work; wait until it has ended"
}

make_work() {
  trap ended EXIT
  rm -rf "$work"
  {
    hear mkdir -p "$(dirname "$program")" && hear mkdir -m 0700 "$work" &&
      printf '#!/bin/sh\n' >"$work/probe" && chmod +x "$work/probe"
  } || fail "PREFIX=$prefix cannot be made, see above; $left"
  "$work/probe" || die "nothing can be executed on the disk of $program (noexec); set PREFIX to a folder of another"
  export TMPDIR=$work
}

main() {
  local release running=no
  [ -e pyproject.toml ] || die "run it from a checkout: there is no $PWD/pyproject.toml"
  check_board
  release=$(check_python)
  check_extras
  # A device with keys takes what they signed and nothing else; without the library that tells, it takes nothing at all.
  if compgen -G "$etc/keys/*.pub" >/dev/null; then extras+=,bundles; fi
  [ "$(readlink "$unit")" != /dev/null ] || die "the service is masked; systemctl unmask vajra-edge, then run this again"
  make_work
  if runs; then running=yes; fi
  make_environment "$release"
  keep_sources
  install_packages "$release"
  if [ "$running" = yes ]; then check_settings; fi
  left="what was there may be replaced in part"
  install_user
  install_files
  put_program
  left="it is installed, but not started"
  rm -rf "$cache"
  start "$running"
}

case "${1:-}" in
  --uninstall | "") ;;
  *) die "unknown argument $1; see the head of this file" ;;
esac
[ "$(id -u)" = 0 ] || die "must be root: sudo bash deploy/install.sh"
check_prefix
lock
if [ "${1:-}" = --uninstall ]; then uninstall "${2:-}"; else main; fi
