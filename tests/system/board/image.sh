#!/usr/bin/env bash
# Makes the machine that test_board.py boots: an aarch64 Debian with its own kernel, systemd, mosquitto, the kernel's
# virtual camera (vivid), and a folder of wheels that install.sh finds everything in without a network.
#   image.sh FOLDER CHECKOUT     what is there already and is made of the same is kept; two to fifteen minutes
# Leaves FOLDER/{vmlinuz,initrd,disk,key}, to which disk is never written: each test lays its own file over it.
# Needs root, a Debian host and 4 GB; apt and pip alone download.
set -euo pipefail
folder=$1 checkout=$2
suite=bookworm python=3.11
host_python=$(command -v "python$python" || command -v python3)
root=$folder/root wheels=$folder/wheels

say() { echo "image.sh: $*" >&2; }

install_debian_packages() {
  local packages=(qemu-system-arm ipxe-qemu qemu-user-static qemu-utils mmdebstrap arch-test kmod cpio e2fsprogs
    openssh-client device-tree-compiler)
  dpkg -s "${packages[@]}" >/dev/null 2>&1 && return
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
}

# Maintainer scripts of arm64 packages run through qemu-user, which the kernel has opened already (flag F).
register_foreign_programs() {
  local registered=/proc/sys/fs/binfmt_misc
  mountpoint -q "$registered" || mount -t binfmt_misc binfmt_misc "$registered"
  [ -e "$registered/qemu-aarch64" ] || cat /usr/lib/binfmt.d/qemu-aarch64.conf >"$registered/register"
}

# The host's own mirror, whatever it is.
debian_sources() {
  local host; host=$(. /etc/os-release && echo "$VERSION_CODENAME")
  apt-get indextargets --format 'deb [arch=arm64] $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' \
    | grep -E " $host(-updates|-security)?(/| )" | sort -u | sed "s/ $host/ $suite/"
}

# Left out, since each takes minutes under emulation for nothing: the kernel's unpacking and its initrd (done natively
# below), byte code, the certificates of a web that no board here sees, and the making of host keys, of which the package
# keeps those that are there.
make_root() {
  [ -e "$root.made" ] && return
  say "Debian $suite for arm64"
  rm -rf "$root"
  local silence='for program in /usr/bin/py3compile /usr/sbin/update-ca-certificates; do
    chroot "$1" dpkg-divert --quiet --local --divert $program.real --no-rename --add $program
    printf "#!/bin/sh\nexit 0\n" >"$1$program"; chmod 755 "$1$program"
  done'
  local keys='mkdir -p "$1/etc/ssh"; for type in rsa ecdsa ed25519; do
    ssh-keygen -q -t $type -N "" -f "$1/etc/ssh/ssh_host_${type}_key"
  done'
  local include=systemd,systemd-sysv,dbus,udev,kmod,python3,python3-venv,mosquitto,v4l-utils,iproute2,procps
  include+=,openssh-server,netbase,busybox-static,media-types
  debian_sources | mmdebstrap --quiet --mode=root --architectures=arm64 --variant=apt --include="$include" \
    --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --essential-hook="$silence" --essential-hook="$keys" \
    --customize-hook='chroot "$1" sh -c "cd /var/tmp && apt-get -q download \$(apt-cache depends linux-image-arm64 | sed -n \"s/.*Depends: //p\")"' \
    "$suite" "$root" - >/dev/null
  touch "$root.made"
}

# The kernel with its modules, and an initrd of busybox and the few modules that find the disk.
make_kernel() {
  [ -e "$folder/initrd" ] && return
  local package version tree=$folder/initrd.tree names=() path
  package=$(find "$root/var/tmp" -name 'linux-image-[0-9]*.deb' -print -quit)
  if [ -n "$package" ]; then
    dpkg-deb --fsys-tarfile "$package" | tar -x -C "$root" --keep-directory-symlink
    rm "$package"
  fi
  version=$(basename "$(ls -d "$root"/lib/modules/*)")
  depmod -b "$root" "$version"
  cp "$root/boot/vmlinuz-$version" "$folder/vmlinuz"
  rm -rf "$tree"
  mkdir -p "$tree"/{bin,modules,proc,sys,dev,root}
  cp "$root/bin/busybox" "$tree/bin/busybox"
  for module in virtio_pci virtio_blk crc32c_generic ext4; do
    while read -r _ path; do
      [ "${path##*.}" = ko ] || continue
      names+=("$(basename "$path")")
      cp "$path" "$tree/modules/"
    done < <(modprobe -d "$root" -S "$version" --show-depends "$module" 2>/dev/null)
  done
  {
    echo '#!/bin/busybox sh'
    echo 'PATH=/bin; busybox mount -t proc proc /proc; busybox mount -t sysfs sys /sys; busybox mount -t devtmpfs dev /dev'
    for module in "${names[@]}"; do echo "busybox insmod /modules/$module 2>/dev/null"; done
    echo 'i=0; while [ ! -b /dev/vda ] && [ $i -lt 300 ]; do busybox sleep 0.1; i=$((i+1)); done'
    echo 'busybox mount -t ext4 -o rw /dev/vda /root || exec busybox sh'
    echo 'busybox umount /proc /sys; exec busybox switch_root /root /sbin/init'
  } >"$tree/init"
  chmod 755 "$tree/init"
  (cd "$tree" && find . | cpio --quiet -o -H newc | gzip -1) >"$folder/initrd.new"
  mv "$folder/initrd.new" "$folder/initrd"
}

# The packages that install.sh would take from the index, as wheels, and an environment that holds them and the product,
# as pip would lay it out in twenty minutes of an emulated processor: install.sh keeps only one that holds both. The byte
# code of one release is the same on every machine.
make_wheels() {
  local lock=$checkout/deploy/locks/aarch64-cp${python/./}.lock
  cmp -s "$lock" "$wheels/made-for" && return
  say "wheels for aarch64"
  rm -rf "$wheels" "$folder/environment" "$folder/disk"
  mkdir -p "$wheels"
  local packages=$folder/environment/lib/python$python/site-packages platforms=(--platform manylinux2014_aarch64) glibc
  for glibc in 17 24 26 27 28 31 34 35; do platforms+=(--platform "manylinux_2_${glibc}_aarch64"); done
  local pip=("$host_python" -m pip --quiet --disable-pip-version-check)
  local theirs=(--no-deps --only-binary=:all: --implementation cp --python-version "$python" "${platforms[@]}")
  "${pip[@]}" download "${theirs[@]}" --dest "$wheels" --requirement "$lock"
  "${pip[@]}" download "${theirs[@]}" --dest "$wheels" 'setuptools>=77.0.3' wheel pip
  mkdir -p "$folder/source"
  cp -rL "$checkout"/{pyproject.toml,README.md,LICENSE,vajra_edge} "$folder/source"   # where it is built, pip writes
  "${pip[@]}" wheel --no-deps --wheel-dir "$folder/source" "$folder/source"
  "${pip[@]}" install "${theirs[@]}" --no-index --target "$packages" "$wheels"/*.whl "$folder/source"/vajra_edge-*.whl
  rm -rf "$folder/source"
  mkdir "$folder/environment/bin"
  ln -s /usr/bin/python3 "$folder/environment/bin/python3"
  ln -s python3 "$folder/environment/bin/python"
  ln -s lib "$folder/environment/lib64"
  printf 'home = /usr/bin\ninclude-system-site-packages = false\nversion = %s\n' "$python" >"$folder/environment/pyvenv.cfg"
  cp "$lock" "$wheels/made-for"
}

# What a board's image would hold: a network, a broker, a camera; and a way in for the tests.
furnish() {
  [ -e "$folder/key" ] || ssh-keygen -q -t ed25519 -N '' -f "$folder/key"
  install -d -m 0700 "$root/root/.ssh"
  install -m 0600 "$folder/key.pub" "$root/root/.ssh/authorized_keys"
  echo board >"$root/etc/hostname"
  echo '127.0.0.1 localhost board' >"$root/etc/hosts"
  echo '/dev/vda / ext4 defaults 0 1' >"$root/etc/fstab"
  printf '[Match]\nName=e*\n[Network]\nDHCP=ipv4\n' >"$root/etc/systemd/network/80-dhcp.network"
  printf 'listener 1883\nallow_anonymous true\n' >"$root/etc/mosquitto/conf.d/board.conf"
  echo vivid >"$root/etc/modules-load.d/vivid.conf"
  echo 'options vivid n_devs=1 node_types=0x1' >"$root/etc/modprobe.d/vivid.conf"   # capture alone, as a webcam has it
  printf '[global]\nno-index = true\nfind-links = /srv/wheels\n' >"$root/etc/pip.conf"
  install -d "$root/var/log/journal"   # its presence makes the journal outlast a power cut
  chroot "$root" systemctl --quiet enable systemd-networkd systemd-networkd-wait-online ssh mosquitto
  chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer \
    e2scrub_reap.service fstrim.timer dpkg-db-backup.timer getty@tty1.service serial-getty@ttyAMA0.service
  : >"$root/etc/machine-id"   # made at the first boot, as on a board
  rm -rf "$root"/srv/* "$root"/var/cache/apt/archives/*.deb
  cp -r "$wheels" "$root/srv/wheels"
  cp -a "$folder/environment" "$root/srv/environment"
  chown -R 0:0 "$root/srv"
}

make_disk() {
  [ -e "$folder/disk" ] && return
  furnish
  rm -f "$folder/disk.new"
  truncate -s 4G "$folder/disk.new"
  mke2fs -q -F -t ext4 -d "$root" "$folder/disk.new"
  mv "$folder/disk.new" "$folder/disk"
}

mkdir -p "$folder"
exec 9<"$folder"
flock 9
install_debian_packages
register_foreign_programs
make_root
make_kernel
make_wheels
make_disk
