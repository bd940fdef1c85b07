"""Deletion: of the pictures that the cameras gave for calibration, whoever looks, writes or deletes meanwhile."""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from vajra_edge import durable
from vajra_edge.engine import kept, sampler

DELETED = ".deleted-"


def delete(folder: Path) -> None:
    """Remove all images and their list: for whoever looks meanwhile, in one step.

    A link to another disk, or one that is mounted here, stays: its images go one by one, their list at last, so that
    nobody takes what is left for a set that is being collected.

    Raises:
        StoreError: the disk refuses.
    """
    aside = folder.with_name(f"{folder.name}{DELETED}{uuid.uuid4().hex}")
    with durable.reported(folder, "deleted"):
        if folder.is_symlink() or os.path.ismount(folder):
            _empty(folder)
        elif folder.is_dir():
            with suppress(FileNotFoundError):  # somebody else deletes it too
                folder.rename(aside)
            durable.sync_folder(folder.parent)
        for rest in folder.parent.glob(f"{folder.name}{DELETED}*"):  # one may be left of a deletion that was cut short
            _remove(rest)


def _empty(folder: Path) -> None:
    for name in (*filter(kept.is_picture, kept.names(folder)), sampler.FROZEN):
        with suppress(NotADirectoryError):  # a link to nothing useful
            (folder / name).unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    if folder.is_symlink():  # earlier versions moved a link aside, and could not go on
        _empty(folder)
        folder.unlink(missing_ok=True)
    while folder.exists():
        with suppress(FileNotFoundError):  # somebody else deletes it too, and was faster with one of the files
            shutil.rmtree(folder)
