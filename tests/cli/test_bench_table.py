from __future__ import annotations

import io
from dataclasses import replace

from benchmark.known import HOST, L4, SETUP, SUBJECT, figures
from rich.console import Console

from vajra_edge.benchmark.compare import compare
from vajra_edge.benchmark.figures import Frames, GpuUse, HostGpu, Ratio, Use
from vajra_edge.benchmark.spread import Spread
from vajra_edge.cli import bench_table

FRAMES = [5.0, 5.1, 4.9, 5.0, 5.2, 5.0]
ORIN = replace(
    HOST,
    machine="NVIDIA Jetson Orin Nano",
    l4t="36.4.3",
    power_mode="15W",
    governor="schedutil",
    gpu=HostGpu("Orin", None, 306.0, 624.75, False, None),
)


def shown(one) -> str:
    console = Console(file=io.StringIO(), width=160)
    bench_table.show(one, console)
    return console.file.getvalue()


def test_a_board_with_its_gpu_and_what_slowed_it_down():
    use = Use(0.4, 1.1, 0.2, 1 << 28, 1 << 29, GpuUse(Spread.of([97.0]), 612.0, 306.0, None, 9.5, 88.0, ("too hot",)))
    text = shown(
        figures(
            FRAMES, host=ORIN, use=use, frame_ms=5.0, frames_per_s=200.0, ratio=Ratio(1.04, 1.02, 1.1), remarks=("x",)
        )
    )
    for told in (
        "NVIDIA Jetson Orin Nano, Xeon, 2 processors, 16.0 GiB, Orin, Jetson Linux 36.4.3",
        "power mode 15W, governor schedutil, GPU clock 306 of 625 MHz, free, load before 0.1, 40 °C",
        "1.040 of the bare engine (1.020 to 1.100 in 6 turns",
        "0.40 processors at the cameras' pace, 1.10 as fast as it goes, 0.20 of the camera's process",
        "256 MiB resident, 512 MiB at the peak",
        "load 97 %, clock 612 MHz, at the least 306, 9.5 W, 88 °C, slowed down: too hot",
    ):
        assert told in text


def test_a_gpu_that_tells_nothing_is_unknown_and_not_idle():
    text = shown(figures(FRAMES, host=replace(HOST, gpu=L4), use=Use(None, None, None, None, None, GpuUse())))
    assert "load unknown" in text
    assert "0 %" not in text.replace("0.0%", "")


def test_cameras_that_are_served_unequally_are_told_by_the_slowest_and_the_fastest():
    frames = Frames(100, 60, 30, 1.5, 4.25, Spread.of([0.1]))
    text = shown(figures([None] * 6, setup=replace(SETUP, cameras=16, fps=30.0), frames=frames))
    assert "16 cameras at 30 frames/s from memory: clip.mp4" in text
    assert "100 arrived, 60 with a message, 30 dropped (30.0%), 1.5 to 4.2 frames/s a camera" in text
    assert "as fast as it goes" not in text


def test_names_of_files_cannot_steer_the_terminal():
    nasty = "\x1b[2J[red]net.onnx"
    one = figures(FRAMES, subject=replace(SUBJECT, name=nasty))
    console = Console(file=io.StringIO(), width=160, force_terminal=False)
    bench_table.show(one, console)
    bench_table.show_comparison(compare(one, figures(FRAMES), by_turns=True), (nasty, "b"), console)
    text = console.file.getvalue()
    assert "\x1b" not in text
    assert "[red]net.onnx" in text
