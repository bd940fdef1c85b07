"""Places: the files that a path, a pattern, a folder or a list stands for, as a data.yaml or a user names them."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath

from vajra_edge.datasets import labels
from vajra_edge.errors import DatasetError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".jp2", ".png", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"})
MAX_LIST_BYTES = 256 << 20

ROOTS_OWN = "lost+found"
"""At the top of every ext4 disk; nobody else may read it, and nobody's pictures are in it."""
COMPANION_FOLDERS = frozenset({"__MACOSX", "@eaDir", ".ipynb_checkpoints"})
"""Copies and thumbnails that macOS, Synology and Jupyter put beside pictures, under the names of pictures."""
CLASS_LIST = "classes.txt"
COMPANION = "._"
"""Begins the name of the file in which macOS keeps what other disks cannot hold; it ends in .jpg like its picture."""


def is_companion(path: Path) -> bool:
    """Whether a file is what a desktop put beside pictures, and no picture."""
    return path.name.startswith(COMPANION) or any(part in COMPANION_FOLDERS for part in path.parts[:-1])


def images_below(folder: Path) -> list[Path]:
    """All images of a folder and of those below, sorted.

    Raises:
        OSError: a folder cannot be read, and it is neither the disk's own nor a private hidden one.
    """
    return _files_below(folder, IMAGE_SUFFIXES)


def clips_below(folder: Path) -> list[Path]:
    """All videos of a folder and of those below, sorted.

    Raises:
        OSError: as ``images_below``.
    """
    return _files_below(folder, VIDEO_SUFFIXES)


def _files_below(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    return [
        path
        for path in _below(folder)
        if path.suffix.lower() in suffixes and not is_companion(path.relative_to(folder)) and path.is_file()
    ]


def images_of(named: str, folders: Sequence[Path]) -> list[Path]:
    """The images that a line of a list stands for: a file, a folder, or a pattern of either.

    Args:
        named: as it is written, perhaps with backslashes.
        folders: what it may be relative to, the first first.

    Returns:
        Empty where there are none.

    Raises:
        OSError: the system refuses.
    """
    for text in dict.fromkeys((named, named.replace("\\", "/"))):
        for folder in folders:
            path = folder / Path(text).expanduser()
            if path.is_file():
                return [path]
            if path.is_dir():
                return images_below(path)
            if glob.has_magic(text) and (matching := _matching(path)):
                return matching
    return []


def _matching(pattern: Path) -> list[Path]:
    found = sorted(Path(name) for name in glob.glob(str(pattern), recursive=True))  # noqa: PTH207  may be absolute
    files = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    below = [image for path in found if path.is_dir() for image in images_below(path)]
    return [path for path in dict.fromkeys((*files, *below)) if not path.name.startswith(COMPANION)]


def listed(place: Path, root: Path) -> Iterator[Path]:
    """The images of a list file, relative to it, to the dataset's root or to the working directory.

    Raises:
        DatasetError: a line names nothing that is there; says file and line.
    """
    for number, line in enumerate(labels.read_text(place, MAX_LIST_BYTES).splitlines(), 1):
        name = line.strip().strip("'\"")
        if not name:
            continue
        found = images_of(name, (place.parent, root, Path.cwd()))
        if not found and name.startswith("#"):
            continue
        if not found:
            told = f"{place}:{number}: {name[:200]} does not exist"
            raise DatasetError(told, remedy=elsewhere(name, place.parent) or "mend the list")
        yield from found


def elsewhere(named: str, folder: Path) -> str:
    """What to write instead of a path of another machine: its end, where that is in this folder; empty if it is not."""
    windows = PureWindowsPath(named)
    parts = [part for part in (windows.parts if "\\" in named or windows.drive else Path(named).parts) if part != ".."]
    for start in range(1, len(parts)):
        rest = Path(*parts[start:])
        if (folder / rest).exists():
            return f"paths of another machine mean nothing here: write {rest}, which is in {folder}"
    return ""


def labels_without_pictures(folder: Path, images: Sequence[Path]) -> list[Path]:
    """Label files beside the images of a folder, or in the folder that stands for it, of which no picture was found.

    Raises:
        OSError: the system refuses.
    """
    own = labels.yolo_path(folder.absolute() / "any.txt").parent
    wanted = {labels.yolo_path(image) for image in images}
    if own == folder.absolute() or not own.is_dir():
        return []
    return [path for path in _below(own) if path.suffix == ".txt" and path not in wanted and not _is_notes(path)]


def class_list(label_file: Path) -> tuple[str, ...]:
    """Names in ``classes.txt``, which labelImg writes among the labels and Label Studio beside their folder.

    Args:
        label_file: one of the labels.

    Returns:
        In the order of class ids; empty where there is no such file.

    Raises:
        DatasetError: it is no text.
        OSError: the system refuses.
    """
    folders = list(label_file.parents)
    top = next((at for at, folder in enumerate(folders) if folder.name == "labels"), -1)
    for folder in folders[: top + 2 if top >= 0 else 1]:
        if (folder / CLASS_LIST).is_file():
            lines = labels.read_text(folder / CLASS_LIST, MAX_LIST_BYTES).splitlines()
            return tuple(line.strip() for line in lines if line.strip())
    return ()


def _is_notes(path: Path) -> bool:
    """``classes.txt`` and the like, which labelling tools put among the labels."""
    return path.name.startswith(COMPANION) or path.stem.lower() in {"classes", "labels", "notes", "readme"}


def _below(folder: Path) -> list[Path]:
    """All names below, sorted; one folder that may not be read is an error, or a set would become smaller unseen."""

    def refuse(error: OSError) -> None:
        if not _nobodys_pictures(Path(error.filename).relative_to(folder), error.errno):
            raise error

    return sorted(Path(root, name) for root, _, names in os.walk(folder, onerror=refuse) for name in names)


def _nobodys_pictures(below: Path, code: int | None) -> bool:
    """Whether a folder that gave ``code`` belongs to the disk or the desktop, as a trash or a search index does.

    Only what may not be read is passed over: a hidden folder on a disk that fails had been in the set until then.
    """
    private = code in {errno.EACCES, errno.EPERM} and any(part.startswith(".") for part in below.parts)
    return private or below.name == ROOTS_OWN
