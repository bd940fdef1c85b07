"""Login file: whether a camera's user and password on disk are others than when they were read."""

from __future__ import annotations

import threading
from typing import TypeAlias

from vajra_edge.config.credentials import credential
from vajra_edge.config.settings import CameraSettings

_LOOK_S = 0.2
"""To look at a local file takes microseconds; on a network disk that hangs nobody waits longer for it."""

_Look: TypeAlias = tuple[int, ...] | None


class LoginFile:
    """The file that a camera's user and password come from; used by the camera's thread alone.

    Each look is another thread's: a file system that hangs holds that one up, and none is started beside it.

    Args:
        camera: its settings.
    """

    def __init__(self, camera: CameraSettings) -> None:
        self._camera = camera
        self._noted: _Look = None
        self._seen: _Look = None
        self._looking: threading.Thread | None = None

    def note(self) -> None:
        """Remember it as it is now; to be called before it is read."""
        self._noted = self._look()

    def is_other(self) -> bool:
        """Whether it was written, replaced, made or removed since ``note``."""
        return self._look() != self._noted

    def _look(self) -> _Look:
        """What another content moves of it; None: there is none. What was seen last, where it does not answer."""
        if self._looking is None or not self._looking.is_alive():
            self._looking = threading.Thread(target=self._see, name="login-file", daemon=True)
            self._looking.start()
        self._looking.join(_LOOK_S)
        return self._seen

    def _see(self) -> None:
        try:
            path = self._camera.credentials_file or credential(f"camera-{self._camera.id}")
            status = path.stat() if path is not None else None
        except OSError:
            status = None
        self._seen = status and (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
