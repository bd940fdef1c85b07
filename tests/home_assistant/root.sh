#!/usr/bin/env bash
# A folder with Python 3.14 and a real Home Assistant core, for test_core.py; as root.
#   root.sh FOLDER    makes it: 800 MB, a minute on two idle cores, a quarter of an hour on busy ones; again: what is missing
set -euo pipefail
root=${1:?the folder to make}
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -1)
# Debian's testing suite has Python 3.14; the Release file of a mirror may be older than its date allows.
[ -e "$root/usr/bin/python3.14" ] || mmdebstrap --quiet --aptopt='Acquire::Check-Valid-Until "false"' \
  --include=python3.14,python3.14-venv,libturbojpeg0 forky "$root" "$mirror"
mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
mountpoint -q "$root/dev" || mount --bind /dev "$root/dev"
cp /etc/resolv.conf "$root/etc/"
# Where pip finds packages, and whom it trusts, is this machine's affair.
for file in /etc/pip.conf "$HOME/.config/pip/pip.conf"; do [ ! -e "$file" ] || cp "$file" "$root/etc/pip.conf"; done
mkdir -p "$root/etc/ssl/certs"
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
unset PIP_FIND_LINKS
[ -e "$root/opt/ha/bin/python" ] || chroot "$root" python3.14 -m venv /opt/ha
# Without the frontend a second start with the same folder falls into the recovery mode.
chroot "$root" /opt/ha/bin/pip install --quiet homeassistant==2026.11.0 home-assistant-frontend==20261028.4 \
  paho-mqtt==2.1.0 aiohasupervisor PyTurboJPEG==1.8.3 webrtc-models==0.3.0
