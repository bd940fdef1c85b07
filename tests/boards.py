"""Character devices of real boards, by the names that their drivers register in /proc/devices.

No whole listing of a Jetson's /proc/devices was found in public; these are the names by their drivers' sources, each
with the board and release that uses it, and the nodes that CUDA opens as Ubuntu's and NixOS' own rules list them.
"""

from __future__ import annotations

from collections.abc import Mapping

REGIONS: Mapping[str, tuple[str, ...]] = {
    # nvgpu registers dev_name(): linux-nvgpu, os/linux/ioctl.c, alloc_chrdev_region(..., dev_name(dev)). The device is
    # named in a module of Jetson Linux 36 and of mainline's fuse driver: drivers/soc/tegra/fuse/fuse-tegra30.c.
    "Orin, Jetson Linux 36 and 39": ("17000000.gpu",),
    # /sys/devices/17000000.ga10b of Jetson Linux 35: https://github.com/rbonghi/jetson_stats
    "Orin, Jetson Linux 35": ("17000000.ga10b",),
    # host1x and its engines (VIC, NVDEC, NVJPG, DLA, PVA): linux-nv-oot, drivers/gpu/host1x-nvhost/nvhost.c registers
    # "nvhost", drivers/gpu/host1x-fence/dev.c "host1x-fence".
    "every Jetson since Jetson Linux 35": ("nvhost", "host1x-fence"),
    # Thor and desktops: NVIDIA's open kernel modules. https://github.com/lf-edge/eve/pull/6387 (JetPack 7)
    "AGX Thor, JetPack 7": ("nvidia", "nvidia-frontend", "nvidiactl", "nvidia-uvm", "nvidia-modeset", "nvidia-caps"),
    # /dev/dri/renderD128 and 129 (major 226), without which cuInit gives 801 on Orin NX with JetPack 6.2:
    # https://github.com/wendylabsinc/WendyOS/pull/1699
    "Orin NX, JetPack 6.2": ("drm",),
    "cameras": ("video4linux", "media"),
}

NODES = ("/dev/nvmap", "/dev/host1x-fence", "/dev/nvsciipc")
"""Of the driver "misc", whose region holds what nobody shall open, so each is named by its file."""

CLOSED = ("misc", "input", "watchdog", "hidraw", "mtd", "i2c", "spi", "ttyTHS", "tpm", "rtc", "nvme")
"""Regions of a Jetson that a taken-over daemon must not reach."""

GPU_FAILED = "nvmap nvhost-ctrl-isp nvhost-power-gpu host1x-fence dri/renderD128"
"""Left of an Orin Nano whose nvgpu found no firmware: https://github.com/NVIDIA-AI-IOT/jetson-ai-lab/issues/427. The
issue lists those of nvhost; nvmap, host1x and the display have drivers of their own."""

GPU_WORKS: Mapping[str, str] = {
    # snapd's nvidia-tegra-drivers-support
    "Orin, Jetson Linux 36": "nvmap nvgpu/igpu0/ctrl nvgpu/igpu0/power host1x-fence dri/renderD128",
    # https://github.com/OE4T/meta-tegra-community/issues/104
    "Orin, Jetson Linux 35": "nvmap nvhost-as-gpu nvhost-ctrl nvhost-ctrl-gpu nvhost-ctrl-isp nvhost-gpu",
    # https://github.com/lf-edge/eve/pull/6387
    "AGX Thor, JetPack 7": "nvmap nvidia0 nvidiactl nvidia-uvm nvidia-modeset",
}
"""Device files of a GPU that its driver has started, below /dev."""
