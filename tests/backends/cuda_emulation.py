# ruff: noqa: N802, N815  (CUDA's own names)
"""A GPU as late as a GPU may be: what is queued is done only when somebody waits for it, by our kernels' own source.

A buffer that the host touches too early, a mark that is forgotten, or a slot that is used twice shows as wrong boxes.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backends.cuda_on_cpu import library
from backends.cuda_standin import CAPTURE_REFUSED, CudaStandIn, cudaError_t

from vajra_edge.backends.cuda import driver as cuda_driver
from vajra_edge.backends.cuda import kernels
from vajra_edge.backends.cuda.check import NOT_READY

OK = cudaError_t.cudaSuccess


class _Mark:
    def __init__(self, stream: int) -> None:
        self.stream, self.reached = stream, False


class EmulatedGpu(CudaStandIn):
    """Streams, events, graphs and kernels in host memory.

    Args:
        folder: in which the kernels are compiled.
        integrated: it says that it shares the host's memory.

    Attributes:
        recorded: graphs made so far.
        launched: graphs launched so far.
        registered: host memory that the GPU reads where it lies, address and length.
        refuses_registering: as a GPU that cannot.
        refuses_capture: a capture fails as where something of it cannot be recorded.
        loses: so many of the next graph launches do nothing.
    """

    def __init__(self, folder: Path, *, integrated: bool = False) -> None:
        super().__init__()
        self._folder, self._integrated = folder, integrated
        self._queues: dict[int, deque[Callable[[], None]]] = {}
        self._marks: dict[int, _Mark] = {}
        self._recording: dict[int, list[Callable[[], None]]] = {}
        self._graphs: dict[int, list[Callable[[], None]]] = {}
        self._functions: dict[int, Any] = {}
        self._numbers = iter(range(5000, 1 << 30))
        self.recorded = self.launched = self.loses = 0
        self.refuses_capture = self.refuses_registering = False
        self.registered: dict[int, int] = {}

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().install(monkeypatch)
        monkeypatch.setattr(cuda_driver, "_STARTED", [_Driver(self)])
        monkeypatch.setattr(kernels, "compiler", lambda version: version)
        monkeypatch.setattr(kernels, "machine_code", lambda by, source, name, architecture, cache: name.encode())

    def describe(self, index: int) -> Any:
        found = super().describe(index)
        return type(found)(found.name, "8.7", found.memory_bytes, self._integrated, found.driver)

    def queue(self, stream: int, work: Callable[[], None]) -> None:
        """Do it when somebody waits for it, or record it."""
        assert stream in self.streams
        self._recording.get(stream, self._queues.setdefault(stream, deque())).append(work)

    def drain(self, stream: int, until: _Mark | None = None) -> None:
        queue = self._queues.get(stream, deque())
        while queue and not (until and until.reached):
            queue.popleft()()

    def unreleased(self) -> list[Any]:
        """What is still held, of any kind."""
        return [*self.held, *self.streams, *self._marks, *self._graphs, *self._functions]

    # The runtime.

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        self.drain(stream)
        return super().cudaStreamSynchronize(stream)

    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> tuple[Any, ...]:
        mark = self._marks[event]
        self.queue(stream, lambda: self.drain(mark.stream, mark))
        return (OK if flags == 0 else cudaError_t.cudaErrorInvalidValue,)

    def cudaThreadExchangeStreamCaptureMode(self, mode: int) -> tuple[Any, ...]:
        assert mode == 2
        return OK, 0

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:
        assert mode == 1, "another thread's allocation would spoil the capture"
        self._recording[stream] = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        steps = self._recording.pop(stream)
        if self.refuses_capture:
            return (CAPTURE_REFUSED, 0)
        self.recorded += 1
        return OK, self._number(steps)

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, ...]:
        assert flags == 0
        return OK, self._number(list(self._graphs[graph]))

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Any, ...]:
        self.launched += 1
        if self.loses:
            self.loses -= 1
            return (OK,)
        for step in self._graphs[graph]:
            self.queue(stream, step)
        return (OK,)

    def cudaGraphDestroy(self, graph: int) -> tuple[Any, ...]:
        del self._graphs[graph]
        return (OK,)

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        event = next(self._numbers)
        self._marks[event] = _Mark(0)
        self._marks[event].reached = True
        return OK, event

    def cudaEventRecord(self, event: int, stream: int) -> tuple[Any, ...]:
        mark = self._marks[event] = _Mark(stream)
        self.queue(stream, lambda: setattr(mark, "reached", True))
        return (OK,)

    def cudaEventSynchronize(self, event: int) -> tuple[Any, ...]:
        self.drain(self._marks[event].stream, self._marks[event])
        return (OK,)

    def cudaEventQuery(self, event: int) -> tuple[Any, ...]:
        mark = self._marks[event]
        if (queue := self._queues.get(mark.stream)) and not mark.reached:
            queue.popleft()()
        return (OK if mark.reached else NOT_READY,)

    def cudaEventElapsedTime(self, start: int, end: int) -> tuple[Any, ...]:
        assert self._marks[start].reached
        assert self._marks[end].reached
        return OK, 1.5

    def cudaEventDestroy(self, event: int) -> tuple[Any, ...]:
        del self._marks[event]
        return (OK,)

    def cudaMemcpyAsync(self, to: int, source: int, nbytes: int, kind: int, stream: int) -> tuple[Any, ...]:
        self.queue(stream, lambda: ctypes.memmove(to, source, nbytes) and None)
        return (OK,)

    def cudaHostAlloc(self, nbytes: int, flags: int) -> tuple[Any, ...]:
        assert flags in {0, 2 if self._integrated else 0}
        return self.cudaMalloc(nbytes)

    def cudaHostRegister(self, address: int, nbytes: int, flags: int) -> tuple[Any, ...]:
        assert flags == 11
        if self.refuses_registering:
            return (cudaError_t.cudaErrorInvalidValue,)
        assert address not in self.registered
        self.registered[address] = nbytes
        return (OK,)

    def cudaHostUnregister(self, address: int) -> tuple[Any, ...]:
        del self.registered[address]
        return (OK,)

    def cudaHostGetDevicePointer(self, address: int, flags: int) -> tuple[Any, ...]:
        return OK, address

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        for stream in self.streams:
            self.drain(stream)  # it waits for the device
        return super().cudaFree(address)

    # The driver.

    def cuModuleLoadData(self, code: bytes) -> int:
        return self._function(library(code.decode(), self._folder))

    def cuModuleGetFunction(self, module: int, name: bytes) -> int:
        return self._function(getattr(self._functions[module], f"call_{name.decode()}"), of=module)

    def cuModuleUnload(self, module: int) -> None:
        for number in [one for one in self._functions if one == module or one // 100 == module]:
            del self._functions[number]

    def cuLaunchKernel(self, function: int, *launch: Any) -> None:
        (*sizes, shared, stream, given, extra) = launch
        assert (shared, extra) == (0, None)
        self.queue(stream, lambda: self._functions[function](*sizes, given))

    def _function(self, thing: Any, of: int = 0) -> int:
        taken = [one for one in self._functions if one // 100 == of] if of else []
        number = of * 100 + len(taken) if of else next(self._numbers)
        self._functions[number] = thing
        return number

    def _number(self, steps: list[Callable[[], None]]) -> int:
        number = next(self._numbers)
        self._graphs[number] = steps
        return number


class _Driver:
    """What ``driver()`` answers: statuses are checked there, and are none here."""

    def __init__(self, gpu: EmulatedGpu) -> None:
        self._gpu, self.version = gpu, gpu.version

    def call(self, name: str, *arguments: Any) -> Any:
        return getattr(self._gpu, name)(*arguments)

    def count(self) -> int:
        return self._gpu.count()

    def describe(self, index: int) -> Any:
        return self._gpu.describe(index)
