"""NVRTC: CUDA C to machine code for one architecture, and a cache of it on disk.

The compiler needs no GPU, no headers and no driver. A start that finds the code of the last one is spared compiling;
where no compiler loads any more it has that code all the same.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
from pathlib import Path
from typing import Any

from vajra_edge import durable, state_file
from vajra_edge.backends.cuda.check import CudaRefused, CudaUnavailable
from vajra_edge.backends.cuda.declared import NVRTC
from vajra_edge.backends.cuda.libraries import candidates
from vajra_edge.backends.cuda.linked import Linked

INSTALL = "install CUDA's compiler library: on a Jetson apt install nvidia-jetpack-runtime (or cuda-nvrtc-12-6)"
OPTIONS = ("--std=c++17", "--fmad=false")
"""Sums and products are rounded one by one, as the host rounds them, so that both find the same objects."""

DIGEST_BYTES = 32
MOST_KEPT_BYTES = 16 << 20
"""Of one entry of the cache; ours are some tens of KB."""

log = logging.getLogger(__name__)


class Compiler:
    """One libnvrtc.

    Args:
        path: as the loader takes it.

    Attributes:
        version: like ``12.6``.

    Raises:
        OSError: it does not load.
        CudaUnavailable: it lacks a function.
    """

    def __init__(self, path: str) -> None:
        for part in Path(path).parent.glob("libnvrtc-builtins.so.*") if "/" in path else ():
            ctypes.CDLL(str(part))  # looked for by the loader's own search otherwise, which does not know wheels
        library = ctypes.CDLL(path)
        self._linked = Linked(library, NVRTC)
        self._text = library.nvrtcGetErrorString
        self._text.argtypes, self._text.restype = [ctypes.c_int], ctypes.c_char_p
        major, minor = self._call("nvrtcVersion")
        self.version = f"{major}.{minor}"

    def compile(self, source: str, name: str, architecture: str) -> bytes:
        """Machine code of a source.

        Args:
            source: CUDA C without includes.
            name: of it, for messages.
            architecture: like ``sm_87``.

        Raises:
            CudaRefused: it does not compile; the message has the compiler's first line about that.
        """
        (program,) = self._call("nvrtcCreateProgram", source.encode(), name.encode(), 0, None, None)
        try:
            return self._compiled(program, architecture)
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(ctypes.c_void_p(program)))

    def _compiled(self, program: int, architecture: str) -> bytes:
        options = [option.encode() for option in (*OPTIONS, f"--gpu-architecture={architecture}")]
        given = (ctypes.c_char_p * len(options))(*options)
        code, *_ = self._linked.call("nvrtcCompileProgram", (program, len(options), given))
        if code:
            (size,) = self._call("nvrtcGetProgramLogSize", program)
            said = self._filled("nvrtcGetProgramLog", program, size).rstrip(b"\0").decode(errors="replace")
            raise self._refusal("nvrtcCompileProgram", code, _first_error(said))
        (size,) = self._call("nvrtcGetCUBINSize", program)
        return self._filled("nvrtcGetCUBIN", program, size)

    def _filled(self, name: str, program: int, size: int) -> bytes:
        buffer = ctypes.create_string_buffer(size)
        self._call(name, program, buffer)
        return buffer.raw

    def _call(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        code, *values = self._linked.call(name, arguments)
        if code:
            raise self._refusal(name, code, "")
        return tuple(values)

    def _refusal(self, name: str, code: int, said: str) -> CudaRefused:
        """NVRTC counts its statuses apart from CUDA's."""
        status = (self._text(code) or b"unknown error").decode()
        return CudaRefused(f"CUDA refused {name}: {status} ({code}) {said}".rstrip(), call=name, code=code, name=status)


class Absent:
    """In the place of a compiler, where none loads.

    Args:
        error: why.
    """

    def __init__(self, error: CudaUnavailable) -> None:
        self.error = error

    def compile(self, source: str, name: str, architecture: str) -> bytes:
        """See ``Compiler.compile``.

        Raises:
            CudaUnavailable: always.
        """
        del source
        why = f"{self.error.message}; and no code of {name} for {architecture} that it made before is of use"
        raise CudaUnavailable(why, remedy=self.error.remedy) from self.error


def _first_error(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "")


def compiler(newest: int) -> Compiler:
    """The newest compiler whose code a driver takes.

    Args:
        newest: the newest CUDA that the driver runs, like 12060.

    Raises:
        CudaUnavailable: there is none.
    """
    refused = []
    for path in candidates("libnvrtc", newest):
        found = _loaded(path)
        if isinstance(found, Compiler):
            return found
        refused.append(found)
    raise CudaUnavailable(f"CUDA's compiler does not load: {'; '.join(refused)}", remedy=INSTALL)


def _loaded(path: str) -> Compiler | str:
    """A compiler, or why it does not load."""
    try:
        return Compiler(path)
    except (OSError, CudaUnavailable, CudaRefused) as error:
        return str(error)


def machine_code(made_by: Compiler | Absent, source: str, name: str, architecture: str, folder: Path | None) -> bytes:
    """Compile, or take what was compiled from the same source by the same release for the same architecture.

    Args:
        made_by: compiles; where it is absent, what any release made is taken.
        source: see ``Compiler.compile``.
        name: of it; the cache holds one entry for each name and architecture.
        architecture: like ``sm_87``.
        folder: of the cache; made where it is missing. One that cannot be read or written is done without, as is None.

    Raises:
        CudaRefused: it does not compile.
        CudaUnavailable: there is no compiler, and nothing is kept.
    """
    if folder is None:
        return made_by.compile(source, name, architecture)
    key = hashlib.sha256("\0".join((source, *OPTIONS)).encode()).hexdigest()
    stem = f"{name}.{architecture}.{key}"
    if isinstance(made_by, Absent):
        whole = filter(None, map(_kept, folder.glob(f"{stem}.*.cubin")))
        return next(whole, None) or made_by.compile(source, name, architecture)
    path = folder / f"{stem}.{made_by.version}.cubin"
    if (kept := _kept(path)) is not None:
        return kept
    code = made_by.compile(source, name, architecture)
    try:
        durable.make_folder(folder)
        durable.replace(path, hashlib.sha256(code).digest() + code, folder)
        for other in set(folder.glob(f"{name}.{architecture}.*.cubin")) - {path}:
            other.unlink(missing_ok=True)
    except OSError as error:
        log.warning("machine code of %s is not kept: %s", name, error)
    return code


def _kept(path: Path) -> bytes | None:
    """What was kept, if it is whole."""
    try:
        content = state_file.read(path, MOST_KEPT_BYTES)
    except OSError:
        return None
    digest, code = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    return code if code and hashlib.sha256(code).digest() == digest else None
