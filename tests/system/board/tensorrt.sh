#!/usr/bin/env bash
# Makes a disk with NVIDIA's real TensorRT 10.6 for aarch64 as JetPack's packages would lay it out, in three folders:
# libraries (libnvinfer10, cuda-cudart, cuda-nvrtc), bindings (python3-libnvinfer), and old-driver, which is none of
# NVIDIA's: a libcuda.so.1 that sees an Orin and says that it is CUDA 11.4's, which CUDA 12 must refuse.
#   tensorrt.sh FOLDER     leaves FOLDER/tensorrt.disk; needs maven, for the libraries come in a jar
# Fetched, never kept in the repository. The builder's kernels (1.4 GB) are left out: no board here has a GPU.
set -euo pipefail
folder=$1
artifact=10.6-1.5.11 version=10.6.0 cuda=12.6.77
tree=$folder/tensorrt.tree library=usr/lib/aarch64-linux-gnu

[ -e "$folder/tensorrt.disk" ] && exit
dpkg -s gcc-aarch64-linux-gnu unzip >/dev/null 2>&1 || {
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc-aarch64-linux-gnu unzip >/dev/null
}
rm -rf "$tree"
mkdir -p "$tree"/{fetched,libraries/$library,libraries/etc/ld.so.conf.d,bindings/usr/lib/python3/dist-packages/tensorrt}
mkdir -p "$tree/old-driver/$library"

mvn -q -B dependency:get -Dartifact="org.bytedeco:tensorrt:$artifact:jar:linux-arm64-redist" -Dtransitive=false >&2
jar=$HOME/.m2/repository/org/bytedeco/tensorrt/$artifact/tensorrt-$artifact-linux-arm64-redist.jar
for name in libnvinfer.so.10 libnvinfer_plugin.so.10 libnvonnxparser.so.10; do
  unzip -q -p "$jar" "org/bytedeco/tensorrt/linux-arm64/$name" >"$tree/libraries/$library/$name"
done

python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
  --python-version 3.11 --platform manylinux_2_31_aarch64 --platform manylinux2014_aarch64 --dest "$tree/fetched" \
  "tensorrt-cu12-bindings==$version" "nvidia-cuda-runtime-cu12==$cuda" "nvidia-cuda-nvrtc-cu12==$cuda"
for wheel in "$tree"/fetched/*.whl; do unzip -q -o "$wheel" -d "$tree/fetched"; done
toolkit=usr/local/cuda-12.6/targets/aarch64-linux/lib
mkdir -p "$tree/libraries/$toolkit"
cp "$tree"/fetched/nvidia/*/lib/*.so* "$tree/libraries/$toolkit/"
echo "/$toolkit" >"$tree/libraries/etc/ld.so.conf.d/nvidia-cuda.conf"

packages=$tree/bindings/usr/lib/python3/dist-packages
cp -r "$tree"/fetched/tensorrt_bindings/. "$packages/tensorrt/"
mkdir "$packages/tensorrt-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: tensorrt\nVersion: %s\n' "$version" >"$packages/tensorrt-$version.dist-info/METADATA"

aarch64-linux-gnu-gcc -shared -fPIC -O1 -fno-builtin -nostdlib -Wl,-soname,libcuda.so.1 -o "$tree/old-driver/$library/libcuda.so.1" -xc - <<'C'
int cuInit(unsigned flags) { return flags != 0; }
int cuDriverGetVersion(int *version) { *version = 11040; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return number == 0 ? 0 : 101; }
int cuDeviceGetName(char *name, int length, int device) {
  for (int at = 0; at < length && at < 5; at++) name[at] = "Orin"[at];
  return device;
}
int cuDeviceTotalMem_v2(unsigned long *bytes, int device) { *bytes = 8ul << 30; return device; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 8 : attribute == 76 ? 7 : 1; /* compute capability 8.7, integrated */
  return device;
}
C

rm -rf "$tree/fetched"
truncate -s 500M "$folder/tensorrt.disk.new"
mke2fs -q -F -t ext4 -E root_owner=0:0 -d "$tree" "$folder/tensorrt.disk.new"
mv "$folder/tensorrt.disk.new" "$folder/tensorrt.disk"
rm -rf "$tree"
