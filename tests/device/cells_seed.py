"""B: the blocks of the document that upstream's users know, run as they stand but for the names of files."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lab as shared
from lab import Lab, Unavailable

WEIGHTS = "vajra-v1-nano-det.pt"
ENGINE = "vajra-v1-nano-det.engine"


@dataclass(frozen=True)
class Ran:
    """What came of a block.

    Attributes:
        seconds: of each step.
        engine_mb: size of the engine.
        precision: achieved.
        header: what the engine's header says of batch, sizes and arguments.
        boxes: found on the photo by the block's predict.
        said: last lines of the commands.
    """

    seconds: dict[str, float]
    engine_mb: float
    precision: str
    header: dict[str, Any]
    boxes: int
    said: dict[str, str]


def seed(lab: Lab) -> str:
    """The document, which lies beside the data where it lies at all."""
    for path in (lab.data / "seed.md", lab.data.parent / "reference" / "seed.md"):
        if path.is_file():
            return path.read_text()
    raise Unavailable("seed.md is neither in the data folder nor in reference/ beside it")


def blocks(text: str, language: str) -> list[str]:
    return [textwrap.dedent(block) for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]


@contextlib.contextmanager
def place(lab: Lab, name: str) -> Iterator[Path]:
    """A folder with the document's files: its weights, its data set (coco128) and its picture."""
    folder = lab.work / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "path" / "to").mkdir(parents=True)
    shutil.copyfile(lab.data / "models" / "vajra-v1-nano-det-cctv.pt", folder / WEIGHTS)
    names = re.sub(r"(?m)^(path|train|val):.*\n", "", (lab.data / "coco128.yaml").read_text())
    photos = "images/few" if lab.dry else "images/coco128"
    (folder / "coco.yaml").write_text(f"path: {folder}\ntrain: {photos}\nval: {photos}\n{names}")
    for kind in ("images", "labels"):
        (folder / kind / "few").mkdir(parents=True)
        (folder / kind / "coco128").symlink_to(lab.data / kind / "coco128")
        for path in sorted((lab.data / kind / "coco128").iterdir())[:8]:
            (folder / kind / "few" / path.name).symlink_to(path)
    street(lab, folder / "path" / "to" / "img.jpg")
    before = Path.cwd()
    os.chdir(folder)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    try:
        yield folder
    finally:
        os.chdir(before)


def street(lab: Lab, path: Path) -> None:
    """A frame of the scene that the network was trained for, with some ten persons."""
    import cv2

    clip = cv2.VideoCapture(str(lab.data / "videos" / "vtest.avi"))
    for _ in range(700):
        clip.grab()
    seen, image = clip.read()
    clip.release()
    assert seen, "vtest.avi cannot be read"
    cv2.imwrite(str(path), image)


def python_block(lab: Lab, number: int) -> Ran:
    """Block 0: half, val and predict; block 1: INT8 with dynamic sizes."""
    from vajra_edge import Vajra

    code = blocks(seed(lab), "python")[number].replace("from vajra import Vajra", "")
    seconds: dict[str, float] = {}
    with place(lab, f"seed-python-{number}") as folder, shared.effort(), _usual_choice(lab):
        told: dict[str, Any] = {"Vajra": _on_desk(Vajra) if lab.dry else Vajra}
        for line in [line for line in code.splitlines() if line.strip()]:
            began_s = time.monotonic()
            exec(compile(line, "seed.md", "exec"), told)  # noqa: S102  the document is the test
            seconds[line] = round(time.monotonic() - began_s, 1)
            lab.keep({"seconds": seconds})
        made = _ran(folder, seconds, len(told["result"][0]), {})
        lab.keep(made)
        _check(made, int8="int8=True" in code, batch=8 if "batch=8" in code else 1, dynamic="dynamic=True" in code)
        assert made.boxes > 0, "predict finds nobody on the street"
        return made


def commands(lab: Lab, number: int) -> Ran:
    """The same on the command line; block 1 without dynamic sizes."""
    from vajra_edge.__main__ import main

    lines = [line for line in blocks(seed(lab), "bash")[number].splitlines() if line.strip()]
    seconds: dict[str, float] = {}
    said: dict[str, str] = {}
    with place(lab, f"seed-commands-{number}") as folder, shared.effort(), _usual_choice(lab):
        for line in lines:
            _, verb, *words = shlex.split(line)
            if lab.dry and verb != "export":
                continue
            heard, began_s = Heard(), time.monotonic()
            with contextlib.redirect_stdout(heard):
                code = main([verb, *words])
            seconds[line] = round(time.monotonic() - began_s, 1)
            said[line] = heard.text()[-600:]
            lab.keep({"seconds": seconds, "said": said})
            assert code == 0, f"{line!r} ended with {code}: {said[line]}"
        made = _ran(folder, seconds, -1, said)
        lab.keep(made)
        _check(made, int8=number == 1, batch=8 if number else 1, dynamic=False)
        return made


def _usual_choice(lab: Lab) -> contextlib.AbstractContextManager[None]:
    """Layers by trials, as the document's reader gets them; a dry run has no time for that."""
    return shared.quick_choice(lab) if lab.dry else contextlib.nullcontext()


class Heard:
    """Takes what is printed, and is no terminal."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self._parts: list[str] = []

    def write(self, text: str) -> int:
        self._parts.append(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        return False

    def text(self) -> str:
        return "".join(self._parts).strip()


def _ran(folder: Path, seconds: dict[str, float], boxes: int, said: dict[str, str]) -> Ran:
    from vajra_edge.plans import engine_file

    header = engine_file.read(folder / ENGINE).metadata
    kept = {name: header.get(name) for name in ("batch", "img_size", "max_img_size", "args")}
    size_mb = round((folder / ENGINE).stat().st_size / 1e6, 1)
    return Ran(dict(seconds), size_mb, header["vajra_edge"]["precision"], kept, boxes, said)


def _check(made: Ran, *, int8: bool, batch: int, dynamic: bool) -> None:
    wanted = "int8" if int8 else "fp16"
    assert made.precision == wanted, f"{wanted} was asked for, {made.precision} came: see the log"
    assert made.header["batch"] == batch
    assert bool(made.header["args"]["dynamic"]) == dynamic


def _on_desk(interface: Any) -> Any:
    """For a dry run: engines run as the ONNX of the same weights, on the CPU."""

    class OnDesk(interface):
        def __init__(self, weights: str, verbose: bool = False) -> None:
            if weights == ENGINE:
                weights = interface(WEIGHTS).export(format="onnx")
            super().__init__(weights, verbose)

        def val(self, *arguments: Any, **named: Any) -> Any:
            return super().val(*arguments, **{**named, "device": "cpu"})

    return OnDesk
