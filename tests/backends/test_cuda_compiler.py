"""Kernels are compiled by the real compiler, which needs no GPU; what is kept of it is whole or made anew."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vajra_edge.backends.cuda import compiler as cuda_compiler
from vajra_edge.backends.cuda import sources
from vajra_edge.backends.cuda.check import CudaRefused, CudaUnavailable
from vajra_edge.backends.cuda.compiler import Absent, Compiler, compiler, machine_code

ARCHITECTURES = ("sm_87", "sm_90")
"""An Orin, and the GPUs that ours is measured on."""

TINY = 'extern "C" __global__ void twice(float *where) { where[threadIdx.x] *= 2.0f; }'


@pytest.fixture(scope="module")
def nvrtc() -> Compiler:
    try:
        return compiler(99000)
    except CudaUnavailable as error:
        pytest.skip(f"absent here: NVRTC ({error.message[:80]})")


def require_every_kernel(made_by: Compiler) -> None:
    for name, kernels in sources.KERNELS.items():
        for architecture in ARCHITECTURES:
            code = made_by.compile(sources.source(name), name, architecture)
            assert code.startswith(b"\x7fELF")
            assert [kernel for kernel in kernels if kernel.encode() not in code] == []


def test_every_kernel_compiles_for_every_architecture(nvrtc: Compiler) -> None:
    require_every_kernel(nvrtc)


@pytest.mark.long("downloads 24 MB of NVRTC 12.6; the release that is installed compiles always")
def test_every_kernel_compiles_with_the_compiler_of_jetpack_6(tmp_path: Path) -> None:
    wanted = "nvidia-cuda-nvrtc-cu12==12.6.85"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp_path), wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"absent here: a package index ({done.stderr[-200:]})")
    zipfile.ZipFile(next(tmp_path.glob("*.whl"))).extractall(tmp_path)
    made_by = Compiler(str(tmp_path / "nvidia" / "cuda_nvrtc" / "lib" / "libnvrtc.so.12"))
    assert made_by.version == "12.6"
    require_every_kernel(made_by)


def test_a_source_that_does_not_compile_says_where(nvrtc: Compiler) -> None:
    said = r'nvrtcCompileProgram: NVRTC_ERROR_COMPILATION .* bad\(1\): error: .*"nothing"'
    with pytest.raises(CudaRefused, match=said):
        nvrtc.compile("__global__ void bad() { nothing; }", "bad", "sm_87")


def test_an_architecture_that_the_compiler_does_not_know_is_refused(nvrtc: Compiler) -> None:
    with pytest.raises(CudaRefused, match="invalid value for --gpu-architecture"):
        nvrtc.compile(TINY, "twice", "sm_12")


class Counting:
    """A compiler that counts."""

    def __init__(self, version: str = "12.6") -> None:
        self.version, self.made = version, 0

    def compile(self, source: str, name: str, architecture: str) -> bytes:
        self.made += 1
        return f"{source} {architecture} {self.version}".encode()


def test_code_is_compiled_once_for_each_architecture_source_and_release(tmp_path: Path) -> None:
    folder, old, new = tmp_path / "kernels", Counting(), Counting("13.2")
    first = machine_code(old, TINY, "twice", "sm_87", folder)
    assert machine_code(old, TINY, "twice", "sm_87", folder) == first
    assert old.made == 1
    assert machine_code(old, TINY, "twice", "sm_90", folder) != first
    assert machine_code(new, TINY, "twice", "sm_87", folder) != first
    assert machine_code(new, TINY + " ", "twice", "sm_87", folder) != first
    assert (old.made, new.made) == (2, 2)
    assert sorted(path.name.split(".")[1] for path in folder.iterdir()) == ["sm_87", "sm_90"], "no heap of old ones"


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 4096])
def test_damaged_code_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    made_by = Counting()
    first = machine_code(made_by, TINY, "twice", "sm_87", tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage)
    assert machine_code(made_by, TINY, "twice", "sm_87", tmp_path) == first
    assert made_by.made == 2
    assert machine_code(made_by, TINY, "twice", "sm_87", tmp_path) == first
    assert made_by.made == 2


def test_a_flipped_bit_is_damage(tmp_path: Path) -> None:
    made_by = Counting()
    machine_code(made_by, TINY, "twice", "sm_87", tmp_path)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    machine_code(made_by, TINY, "twice", "sm_87", tmp_path)
    assert made_by.made == 2


def test_without_a_place_to_keep_it_code_is_compiled_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    made_by = Counting()
    for _ in range(2):
        assert machine_code(made_by, TINY, "twice", "sm_87", tmp_path / "file" / "folder")
    assert made_by.made == 2
    assert "machine code of twice is not kept" in caplog.text


ABSENT = Absent(CudaUnavailable("CUDA's compiler does not load: libnvrtc.so.12", remedy="install it"))
NOTHING_KEPT = r"does not load: libnvrtc.so.12; and no code of twice for sm_87 that it made before is of use"


@pytest.mark.parametrize("version", ["12.6", "13.2"])
def test_without_a_compiler_what_any_release_made_is_used(tmp_path: Path, version: str) -> None:
    kept = machine_code(Counting(version), TINY, "twice", "sm_87", tmp_path)
    assert machine_code(ABSENT, TINY, "twice", "sm_87", tmp_path) == kept
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("source", "name", "architecture"),
    [(TINY + " ", "twice", "sm_87"), (TINY, "twice2", "sm_87"), (TINY, "twice", "sm_90")],
)
def test_without_a_compiler_code_of_anything_else_is_not_used(
    tmp_path: Path, source: str, name: str, architecture: str
) -> None:
    machine_code(Counting(), source, name, architecture, tmp_path)
    with pytest.raises(CudaUnavailable, match=NOTHING_KEPT):
        machine_code(ABSENT, TINY, "twice", "sm_87", tmp_path)


@pytest.mark.parametrize("folder", ["kept", "absent", None])
def test_without_a_compiler_damaged_code_and_none_are_refused_with_the_remedy(
    tmp_path: Path, folder: str | None
) -> None:
    machine_code(Counting(), TINY, "twice", "sm_87", tmp_path / "kept")
    (path,) = (tmp_path / "kept").iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CudaUnavailable, match=NOTHING_KEPT) as refused:
        machine_code(ABSENT, TINY, "twice", "sm_87", folder and tmp_path / folder)
    assert refused.value.remedy == "install it"


def test_a_compiler_that_refuses_its_first_call_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Compiler):
        def __init__(self, path: str) -> None:
            raise CudaRefused("CUDA refused nvrtcVersion: internal error (11)", call="nvrtcVersion", code=11, name="")

    monkeypatch.setattr(cuda_compiler, "Compiler", Broken)
    with pytest.raises(CudaUnavailable, match=r"does not load: .*nvrtcVersion"):
        compiler(12060)


def test_without_a_compiler_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_compiler, "candidates", lambda stem, newest: iter(["libnvrtc_of_no_machine.so.12"]))
    with pytest.raises(CudaUnavailable, match=r"libnvrtc_of_no_machine.*cuda-nvrtc-12-6"):
        compiler(12060)
