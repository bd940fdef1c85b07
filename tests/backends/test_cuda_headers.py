"""Every declaration of ours against CUDA's own: headers of 12.6 and 13, and what cuda-python was made from."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vajra_edge.backends.cuda import check, declared
from vajra_edge.backends.cuda.declared import DRIVER, DRIVER_MODULES, NVRTC, RUNTIME, Call, Parameter

HANDLES = frozenset(
    {
        "cudaStream_t",
        "cudaEvent_t",
        "CUstream",
        "CUmodule",
        "CUfunction",
        "nvrtcProgram",
        "cudaGraph_t",
        "cudaGraphExec_t",
    }
)
"""Pointers to structures that nobody sees."""

SCALARS = {
    "int": ctypes.c_int,
    "unsigned int": ctypes.c_uint,
    "unsigned long long": ctypes.c_ulonglong,
    "float": ctypes.c_float,
    "size_t": ctypes.c_size_t,
    "CUdevice": ctypes.c_int,
    "cudaMemcpyKind": ctypes.c_int,
    "cudaStreamCaptureMode": ctypes.c_int,
    "CUdevice_attribute": ctypes.c_int,
    "void*": ctypes.c_void_p,
    "char*": ctypes.c_char_p,
    "char**": declared.TEXTS.ctype,
    "void**": declared.ADDRESSES.ctype,
}
"""What C calls it -> what ``ctypes`` does, on every machine of 64 bits that this runs on."""

CONSTANTS = {
    "cudaMemcpyDefault": declared.MEMCPY_DEFAULT,
    "cudaStreamNonBlocking": declared.STREAM_NON_BLOCKING,
    "cudaHostAllocDefault": declared.HOST_ALLOC_DEFAULT,
    "cudaHostAllocMapped": declared.HOST_ALLOC_MAPPED,
    "cudaHostRegisterPortable": declared.HOST_REGISTER_PORTABLE,
    "cudaHostRegisterMapped": declared.HOST_REGISTER_MAPPED,
    "cudaHostRegisterReadOnly": declared.HOST_REGISTER_READ_ONLY,
    "cudaStreamCaptureModeThreadLocal": declared.CAPTURE_THREAD_LOCAL,
    "cudaStreamCaptureModeRelaxed": declared.CAPTURE_RELAXED,
    "cudaEventDefault": declared.EVENT_DEFAULT,
    "cudaErrorNotReady": check.NOT_READY,
    "cudaEventBlockingSync": declared.EVENT_BLOCKING_SYNC,
    "cudaEventDisableTiming": declared.EVENT_DISABLE_TIMING,
    "CU_DEVICE_ATTRIBUTE_INTEGRATED": declared.ATTRIBUTE_INTEGRATED,
    "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR": declared.ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
    "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR": declared.ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
    "cudaErrorMemoryAllocation": check.OUT_OF_MEMORY,
    "cudaErrorInsufficientDriver": check.INSUFFICIENT_DRIVER,
    "CUDA_ERROR_NO_DEVICE": check.NO_DEVICE,
}

ABSENT = {
    "cudaErrorInitializationError": 3,
    "CUDA_ERROR_STUB_LIBRARY": 34,
    "cudaErrorCallRequiresNewerDriver": 36,
    "CUDA_ERROR_DEVICE_UNAVAILABLE": 46,
    "CUDA_ERROR_OPERATING_SYSTEM": 304,
    "CUDA_ERROR_NOT_SUPPORTED": 801,
    "CUDA_ERROR_SYSTEM_NOT_READY": 802,
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": 803,
    "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE": 804,
    "CUDA_ERROR_UNKNOWN": 999,
    "cudaErrorInsufficientDriver": 35,
    "CUDA_ERROR_NO_DEVICE": 100,
}

LOST = {
    "cudaErrorECCUncorrectable": 214,
    "cudaErrorIllegalAddress": 700,
    "cudaErrorLaunchTimeout": 702,
    "cudaErrorAssert": 710,
    "cudaErrorHardwareStackError": 714,
    "cudaErrorIllegalInstruction": 715,
    "cudaErrorMisalignedAddress": 716,
    "cudaErrorInvalidAddressSpace": 717,
    "cudaErrorInvalidPc": 718,
    "cudaErrorLaunchFailure": 719,
    "cudaErrorCooperativeLaunchTooLarge": 720,
}


def prototype(text: str, name: str) -> list[str]:
    """The types of a function's parameters, without names, const and enum, as a header or a .pxd declares them."""
    status = r"\b(?:CUresult|cudaError_t|nvrtcResult)\b"
    found = re.search(rf"^(?!\s*[*#]).*{status}.*\b{name}\s*\(([^;{{]*?)\)\s*(?:;|except|nogil)", text, re.MULTILINE)
    assert found is not None, f"{name} is not declared"
    whole = re.sub(r"\s*__dv\([^)]*\)|\bconst\b|\benum\b|\bstruct\b", "", found[1])
    return [_type_of(" ".join(one.split())) for one in whole.split(",") if one.strip() != "void"]


def _type_of(parameter: str) -> str:
    """``void **devPtr`` is ``void**``, ``unsigned int flags`` is ``unsigned int``; a handle is an address."""
    stars = parameter.count("*")
    words = parameter.replace("*", " ").split()
    base = " ".join(
        words[:-1]
        if len(words) > 1 and words[-2:] != ["unsigned", "int"] and words[-3:] != ["unsigned", "long", "long"]
        else words
    )
    base, stars = ("void", stars + 1) if base in HANDLES else (base, stars)
    return base + "*" * stars


def ours(parameter: Parameter) -> set[str]:
    """All that C may call a parameter that we declare so."""
    names = {name for name, kind in SCALARS.items() if kind is parameter.ctype}
    if parameter.enum:
        names = {parameter.enum}
    elif parameter.ctype is ctypes.c_int:
        names -= {"cudaMemcpyKind", "cudaStreamCaptureMode", "CUdevice_attribute"}
    return {f"{name}*" for name in names} if parameter.pointed else names


def wrong(call: Call, text: str, name: str) -> list[str]:
    found = prototype(text, name)
    if len(found) != len(call.parameters):
        return [f"{name} takes {len(found)} parameters, not {len(call.parameters)}"]
    pairs = zip(call.parameters, found, strict=True)
    return [f"{name}: {kind}, not {ours(parameter)}" for parameter, kind in pairs if kind not in ours(parameter)]


def value(text: str, name: str) -> int:
    found = re.search(rf"\b{name}\s*=\s*(0x[\da-fA-F]+|\d+)|#define\s+{name}\s+\(?(0x[\da-fA-F]+|\d+)", text)
    assert found is not None, f"{name} is not there"
    return int(found[1] or found[2], 0)


def held_against(include: Path) -> list[str]:
    """What of ours these headers contradict."""
    runtime = (include / "cuda_runtime_api.h").read_text(errors="replace")
    driver = (include / "cuda.h").read_text(errors="replace")
    everything = "\n".join((runtime, driver, (include / "driver_types.h").read_text(errors="replace")))
    told = [line for name, call in RUNTIME.items() for line in wrong(call, runtime, name)]
    for name, call in {**DRIVER, **DRIVER_MODULES}.items():
        plain = name.removesuffix("_v2")
        if plain != name and not re.search(rf"#define\s+{plain}\s+{name}\b", driver):
            told.append(f"the header does not mean {name} by {plain}")
        told += wrong(call, driver, plain)
    compiler = include / "nvrtc.h"
    if compiler.exists():
        told += [line for name, call in NVRTC.items() for line in wrong(call, compiler.read_text(), name)]
    named = {**CONSTANTS, **ABSENT, **LOST}
    return told + [
        f"{name} is {value(everything, name)}" for name, own in named.items() if value(everything, name) != own
    ]


def wheel_folders() -> Iterator[Path]:
    found = importlib.util.find_spec("nvidia")
    for place in (found.submodule_search_locations or ()) if found is not None else ():
        yield from (header.parent for header in Path(place).glob("*/include/cuda_runtime_api.h"))


FOLDERS = list(wheel_folders())


@pytest.mark.skipif(not FOLDERS, reason="absent here: CUDA's headers (nvidia-cuda-runtime)")
@pytest.mark.parametrize("include", FOLDERS, ids=lambda path: path.parts[-2])
def test_the_installed_headers_declare_what_we_do(include: Path) -> None:
    assert held_against(include) == []


@pytest.mark.long("downloads 2 MB of CUDA 12.6; the headers of the CUDA that is installed are read always")
def test_the_headers_of_jetpack_6_declare_what_we_do(tmp_path: Path) -> None:
    wanted = "nvidia-cuda-runtime-cu12==12.6.77"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp_path), wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"absent here: a package index ({done.stderr[-200:]})")
    zipfile.ZipFile(next(tmp_path.glob("*.whl"))).extractall(tmp_path)
    assert held_against(tmp_path / "nvidia" / "cuda_runtime" / "include") == []


def bindings(name: str) -> str:
    found = importlib.util.find_spec("cuda")
    for place in (found.submodule_search_locations or ()) if found is not None else ():
        if (path := Path(place) / "bindings" / name).exists():
            return path.read_text()
    pytest.skip("absent here: cuda-python's declarations")


def test_cuda_python_declares_what_we_do() -> None:
    assert [line for name, call in RUNTIME.items() for line in wrong(call, bindings("cyruntime.pxd"), name)] == []
    assert [line for name, call in NVRTC.items() for line in wrong(call, bindings("cynvrtc.pxd"), name)] == []
    driver = bindings("cydriver.pxd")
    assert [
        line
        for name, call in {**DRIVER, **DRIVER_MODULES}.items()
        for line in wrong(call, driver, name.removesuffix("_v2"))
    ] == []


def test_cuda_python_has_every_call_and_enumeration_that_is_asked_of_it() -> None:
    module = pytest.importorskip("cuda.bindings.runtime", reason="absent here: cuda-python")
    enums = {one.enum for call in RUNTIME.values() for one in call.parameters if one.enum}
    assert [name for name in (*RUNTIME, *enums) if not hasattr(module, name)] == []
    assert module.cudaMemcpyKind.cudaMemcpyDefault == declared.MEMCPY_DEFAULT


def test_every_status_with_a_remedy_is_one_that_was_looked_up() -> None:
    assert set(ABSENT.values()) == set(check.ABSENT) - {-1}, "which no header has: an old stub says so"
    assert set(LOST.values()) == check.LOST


def test_a_declaration_that_is_wrong_is_noticed() -> None:
    text = "extern cudaError_t CUDARTAPI cudaMalloc(void **devPtr, size_t size);\n"
    assert wrong(RUNTIME["cudaMalloc"], text, "cudaMalloc") == []
    for bad in ((declared.ADDRESS, declared.SIZE), (declared.ADDRESS_OUT, declared.INT), (declared.ADDRESS_OUT,)):
        assert wrong(Call("cudaMalloc", bad), text, "cudaMalloc")
