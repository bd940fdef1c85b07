"""No file gets code run, memory taken or the process ended: attacks, damage in every record, and fuzzing."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import hostile
import pytest
from checkpoints import archive
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vajra_edge.errors import UnsafeWeights, VajraError, WeightsError
from vajra_edge.weights import checkpoint

OPENS_EACH = """
import json, resource, sys, time
from pathlib import Path
import torch
from vajra_edge.weights import checkpoint
from vajra_edge.errors import WeightsError
def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
start_bytes = peak_bytes()
for path in sorted(Path(sys.argv[1]).iterdir(), key=lambda path: int(path.stem)):
    began_s = time.process_time()
    try:
        checkpoint.load(path)
        text = None
    except WeightsError as error:
        text = str(error)
    took_s = time.process_time() - began_s
    print(json.dumps([path.stem, text, took_s, peak_bytes() - start_bytes]), flush=True)
"""
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("canary") / "code_ran"


@pytest.fixture(scope="module")
def corpus(canary: Path) -> list[hostile.Hostile]:
    return list(hostile.corpus(str(canary)))


@pytest.fixture(scope="module")
def answers(torch: Any, corpus: list[hostile.Hostile], tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """Name, refusal, processor seconds and growth in bytes of each file, opened one by one in one fresh process."""
    folder = tmp_path_factory.mktemp("hostile")
    for index, item in enumerate(corpus):
        (folder / f"{index}.pt").write_bytes(item.content)
    child = subprocess.run(
        [sys.executable, "-c", OPENS_EACH, str(folder)],
        capture_output=True, text=True, timeout=240, check=False, cwd=REPOSITORY,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr[-2000:]
    return [json.loads(line) for line in child.stdout.splitlines()]


def test_the_canary_sings_when_their_code_runs(corpus: list[hostile.Hostile], canary: Path) -> None:
    dangerous = [item for item in corpus if item.program is not None]
    assert len(dangerous) > 12
    for item in dangerous:
        with contextlib.suppress(Exception):  # some fail after their code has run
            pickle.loads(item.program)  # noqa: S301  the control: this is what opening such a file does elsewhere
        assert canary.exists(), item.name
        canary.unlink()


def test_every_hostile_file_is_refused_in_one_clear_line(
    answers: list[list[Any]], corpus: list[hostile.Hostile], canary: Path
) -> None:
    assert len(answers) == len(corpus) > 100
    for item, (_, text, _, _) in zip(corpus, answers, strict=True):
        assert text is not None, f"{item.name} was opened"
        assert re.search(item.says, text), f"{item.name}: {text}"
        assert "\n" not in text
        assert len(text) < 500, f"{item.name}: {text}"
    assert not canary.exists()


def test_no_hostile_file_takes_memory_or_time(answers: list[list[Any]], corpus: list[hostile.Hostile]) -> None:
    slowest = max(zip(answers, corpus, strict=True), key=lambda pair: pair[0][2])
    assert slowest[0][2] < 20, slowest[1].name
    assert answers[-1][3] < 400 * 2**20


def test_refused_programs_never_reach_torch(torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load was asked"))
    path = tmp_path / "x.pt"
    path.write_bytes(archive(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."))
    with pytest.raises(UnsafeWeights, match=r"os\.system"):
        checkpoint.load(path)


@pytest.fixture(scope="module")
def sound(torch: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file of real torch; refused only for not being VajraV1."""
    path = tmp_path_factory.mktemp("sound") / "sound.pt"
    torch.save({"0.stem1.conv.weight": torch.ones(5, 3, 3, 3), "b": torch.arange(9)}, path)
    with pytest.raises(WeightsError, match="not a VajraV1"):
        checkpoint.load(path)
    return path


def test_a_flipped_bit_in_any_record_is_found(sound: Path, tmp_path: Path) -> None:
    content = sound.read_bytes()
    with zipfile.ZipFile(sound) as container:
        records = [record for record in container.infolist() if record.file_size]
    assert len(records) > 5
    for record in records:
        start = record.header_offset + 30 + len(record.filename)
        start += int.from_bytes(content[record.header_offset + 28 : record.header_offset + 30], "little")
        for at in (start, start + record.file_size - 1):
            damaged = bytearray(content)
            damaged[at] ^= 0x10
            path = tmp_path / "damaged.pt"
            path.write_bytes(damaged)
            with pytest.raises(WeightsError, match=r"damaged: Bad CRC.32"):
                checkpoint.load(path)


def test_a_file_cut_anywhere_is_refused(sound: Path, tmp_path: Path) -> None:
    content = sound.read_bytes()
    for length in range(0, len(content), max(1, len(content) // 97)):
        (tmp_path / "cut.pt").write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"not a checkpoint|its end is missing"):
            checkpoint.load(tmp_path / "cut.pt")


FRAGMENTS = [
    b"\x80\x02", b"(", b")", b"}", b"]", b"N", b"\x88", b"\x89", b"\x85", b"\x86", b"\x87", b"t", b"R", b"b", b"\x81",
    b"s", b"u", b"a", b"e", b".", b"q\x00", b"h\x00", b"q\x01", b"h\x01", b"Q", b"K\x07", b"\x8a\x01\x05", b"0", b"2",
    hostile.text("0"), hostile.text("_modules"), hostile.text("model"), hostile.text("storage"), hostile.ORDERED,
    hostile.name("torch", "FloatStorage"), hostile.name("torch", "float16"), hostile.name("torch", "Size"),
    hostile.name("torch", "device"), hostile.name("__builtin__", "set"),
    hostile.name("vajra.nn.vajra", "DetectionModel"),
    hostile.name("torch._utils", "_rebuild_parameter"), hostile.name("numpy.core.multiarray", "scalar"),
    hostile.tensor(b"K\x02\x85", b"K\x01\x85"), hostile.tensor(b"K\x01\x85", b"K\x09\x85"),
    hostile.name("os", "system"), hostile.text("touch CANARY"),
]  # fmt: skip


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=24))
def test_no_mix_of_opcodes_runs_or_crashes(
    torch: Any, tmp_path: Path, monkeypatch: Any, fragments: list[bytes]
) -> None:
    monkeypatch.chdir(tmp_path)
    _open(tmp_path, archive(b"\x80\x02" + b"".join(fragments) + b".", {"0": bytes(8)}))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_mutation_of_a_real_program_runs_or_crashes(
    torch: Any, sound: Path, tmp_path: Path, monkeypatch: Any, data: st.DataObject
) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(sound) as container:
        records = {name.partition("/")[2]: container.read(name) for name in container.namelist()}
    program = bytearray(records["data.pkl"])
    for _ in range(data.draw(st.integers(1, 6))):
        at, kind = data.draw(st.integers(0, len(program) - 1)), data.draw(st.sampled_from(["flip", "insert", "cut"]))
        if kind == "flip":
            program[at] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            program[at:at] = data.draw(st.sampled_from(FRAGMENTS))
        else:
            del program[at : at + data.draw(st.integers(1, 9))]
    storages = {name[5:]: content for name, content in records.items() if name.startswith("data/")}
    _open(tmp_path, archive(bytes(program), storages))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_mutation_of_the_container_crashes(torch: Any, sound: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(sound.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    _open(tmp_path, bytes(content))


def _open(folder: Path, content: bytes) -> None:
    """Opens or refuses; anything else fails the test."""
    path = folder / "fuzzed.pt"
    path.write_bytes(content)
    try:
        checkpoint.load(path)
    except VajraError as error:
        assert "\n" not in str(error)  # noqa: PT017  whether it raises is not the question
    assert not (folder / "CANARY").exists()
