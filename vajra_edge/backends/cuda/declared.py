"""The calls of CUDA that this package makes, with their parameters as the headers declare them.

Twelve and thirteen declare all of these alike; ``tests/backends/test_cuda_headers.py`` holds each against the headers.
No structure is passed: those have changed from release to release (``cudaDeviceProp``), scalars have not.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Parameter:
    """One parameter of a C function.

    Attributes:
        ctype: its type; of what it points to, where it is an output.
        out: the function writes it through a pointer, and a call returns it.
        enum: name of its C enumeration, of which cuda-python wants a member; empty for anything else.
        exchanged: the function reads and writes it through a pointer, and a call passes and returns it.
    """

    ctype: Any
    out: bool = False
    enum: str = ""
    exchanged: bool = False

    @property
    def pointed(self) -> bool:
        """The function takes a pointer to it."""
        return self.out or self.exchanged


@dataclass(frozen=True)
class Call:
    """One function that returns a status."""

    name: str
    parameters: tuple[Parameter, ...]


def _calls(**parameters: tuple[Parameter, ...]) -> dict[str, Call]:
    return {name: Call(name, taken) for name, taken in parameters.items()}


ADDRESS = Parameter(ctypes.c_void_p)
"""A pointer, or a handle, which is one: streams and events."""
INT, FLAGS, SIZE = Parameter(ctypes.c_int), Parameter(ctypes.c_uint), Parameter(ctypes.c_size_t)
FLAGS_LONG, MS_OUT = Parameter(ctypes.c_ulonglong), Parameter(ctypes.c_float, out=True)
KIND = Parameter(ctypes.c_int, enum="cudaMemcpyKind")
CAPTURE = Parameter(ctypes.c_int, enum="cudaStreamCaptureMode")
CAPTURE_EXCHANGED = Parameter(ctypes.c_int, enum="cudaStreamCaptureMode", exchanged=True)
ATTRIBUTE = Parameter(ctypes.c_int, enum="CUdevice_attribute")
TEXT = Parameter(ctypes.c_char_p)
TEXTS, ADDRESSES = Parameter(ctypes.POINTER(ctypes.c_char_p)), Parameter(ctypes.POINTER(ctypes.c_void_p))
"""Arrays of them."""
ADDRESS_OUT, INT_OUT, SIZE_OUT = (Parameter(one.ctype, out=True) for one in (ADDRESS, INT, SIZE))

RUNTIME = _calls(
    cudaRuntimeGetVersion=(INT_OUT,),
    cudaGetDeviceCount=(INT_OUT,),
    cudaGetDevice=(INT_OUT,),
    cudaSetDevice=(INT,),
    cudaMemGetInfo=(SIZE_OUT, SIZE_OUT),
    cudaMalloc=(ADDRESS_OUT, SIZE),
    cudaFree=(ADDRESS,),
    cudaHostAlloc=(ADDRESS_OUT, SIZE, FLAGS),
    cudaHostGetDevicePointer=(ADDRESS_OUT, ADDRESS, FLAGS),
    cudaFreeHost=(ADDRESS,),
    cudaHostRegister=(ADDRESS, SIZE, FLAGS),
    cudaHostUnregister=(ADDRESS,),
    cudaMemcpy=(ADDRESS, ADDRESS, SIZE, KIND),
    cudaMemcpyAsync=(ADDRESS, ADDRESS, SIZE, KIND, ADDRESS),
    cudaStreamCreateWithFlags=(ADDRESS_OUT, FLAGS),
    cudaStreamSynchronize=(ADDRESS,),
    cudaStreamWaitEvent=(ADDRESS, ADDRESS, FLAGS),
    cudaThreadExchangeStreamCaptureMode=(CAPTURE_EXCHANGED,),
    cudaStreamBeginCapture=(ADDRESS, CAPTURE),
    cudaStreamEndCapture=(ADDRESS, ADDRESS_OUT),
    cudaStreamDestroy=(ADDRESS,),
    cudaGraphInstantiate=(ADDRESS_OUT, ADDRESS, FLAGS_LONG),
    cudaGraphLaunch=(ADDRESS, ADDRESS),
    cudaGraphExecDestroy=(ADDRESS,),
    cudaGraphDestroy=(ADDRESS,),
    cudaEventCreateWithFlags=(ADDRESS_OUT, FLAGS),
    cudaEventRecord=(ADDRESS, ADDRESS),
    cudaEventSynchronize=(ADDRESS,),
    cudaEventQuery=(ADDRESS,),
    cudaEventElapsedTime=(MS_OUT, ADDRESS, ADDRESS),
    cudaEventDestroy=(ADDRESS,),
)
"""Of libcudart."""

DRIVER = _calls(
    cuInit=(FLAGS,),
    cuDriverGetVersion=(INT_OUT,),
    cuDeviceGetCount=(INT_OUT,),
    cuDeviceGet=(INT_OUT, INT),
    cuDeviceGetName=(TEXT, INT, INT),
    cuDeviceTotalMem_v2=(SIZE_OUT, INT),
    cuDeviceGetAttribute=(INT_OUT, ATTRIBUTE, INT),
)
"""Of libcuda, which is the driver's own."""

DRIVER_MODULES = _calls(
    cuModuleLoadData=(ADDRESS_OUT, ADDRESS),
    cuModuleGetFunction=(ADDRESS_OUT, ADDRESS, TEXT),
    cuModuleUnload=(ADDRESS,),
    cuLaunchKernel=(ADDRESS, *(FLAGS,) * 7, ADDRESS, ADDRESSES, ADDRESSES),
)
"""Of libcuda too: what only kernels of our own need, so that a driver is named before its want of them is."""

NVRTC = _calls(
    nvrtcVersion=(INT_OUT, INT_OUT),
    nvrtcCreateProgram=(ADDRESS_OUT, TEXT, TEXT, INT, TEXTS, TEXTS),
    nvrtcCompileProgram=(ADDRESS, INT, TEXTS),
    nvrtcGetCUBINSize=(ADDRESS, SIZE_OUT),
    nvrtcGetCUBIN=(ADDRESS, TEXT),
    nvrtcGetProgramLogSize=(ADDRESS, SIZE_OUT),
    nvrtcGetProgramLog=(ADDRESS, TEXT),
    nvrtcDestroyProgram=(ADDRESSES,),
)
"""Of libnvrtc, the compiler."""

MEMCPY_DEFAULT = 4
STREAM_NON_BLOCKING = 1
HOST_ALLOC_DEFAULT = 0
HOST_ALLOC_MAPPED = 2
HOST_REGISTER_PORTABLE = 1
HOST_REGISTER_MAPPED = 2
HOST_REGISTER_READ_ONLY = 8
CAPTURE_THREAD_LOCAL = 1
CAPTURE_RELAXED = 2
EVENT_DEFAULT = 0
EVENT_BLOCKING_SYNC = 1
EVENT_DISABLE_TIMING = 2
ATTRIBUTE_INTEGRATED = 18
ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76


def version_text(number: int) -> str:
    """CUDA's number of a release, as people write it: 12060 is ``12.6``."""
    return f"{number // 1000}.{number % 1000 // 10}"
