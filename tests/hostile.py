"""A corpus of hostile weights files. Each names what its refusal must say; those that would run code leave a canary."""

from __future__ import annotations

import builtins
import functools
import os
import pickle
import struct
import subprocess
import time
import timeit
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

from checkpoints import FOLDER, Calls, archive, calling, zipped

PROTO = b"\x80\x02"
ORDERED = b"ccollections\nOrderedDict\n)R"


@dataclass(frozen=True)
class Hostile:
    """One file.

    Attributes:
        name: what it tries.
        content: the file's bytes.
        says: a pattern that its refusal matches.
        program: the pickle inside, if plain ``pickle.loads`` of it leaves the canary.
    """

    name: str
    content: bytes
    says: str
    program: bytes | None = None


def corpus(canary: str) -> Iterator[Hostile]:
    """Every hostile file.

    Args:
        canary: path of a file that appears if any of their code runs.
    """
    yield from _code(canary)
    yield from _names(canary)
    yield from _tensors()
    yield from _memory()
    yield from _malformed()
    yield from _containers()


def text(value: str) -> bytes:
    """The opcode that pushes a string."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    """The opcode that pushes a whole number."""
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def name(module: str, attribute: str) -> bytes:
    """The opcode that pushes a class or function."""
    return f"c{module}\n{attribute}\n".encode()


def _code(canary: str) -> Iterator[Hostile]:
    shell, python = f"touch {canary}", f"open({canary!r}, 'w').close()"
    system = Calls(os.system, shell)
    run = text(shell) + b"\x85R."
    programs = {
        "os.system, protocol 0": (calling(os.system, shell, protocol=0), r"posix\.system"),
        "os.system, protocol 2": (calling(os.system, shell), r"posix\.system"),
        "os.system by STACK_GLOBAL": (calling(os.system, shell, protocol=4), "opcode FRAME"),
        "os.system by INST": (b"(" + text(shell) + b"ios\nsystem\n.", "opcode INST"),
        "os.system by OBJ": (b"(" + name("os", "system") + text(shell) + b"o.", r"os\.system"),
        "os.system through another module": (
            b"\x80\x04" + name("posixpath", "os.system") + run,
            r"posixpath\.os\.system",
        ),
        "getattr": (
            PROTO + name("__builtin__", "getattr") + name("posixpath", "os") + text("system") + b"\x86R" + run,
            r"__builtin__\.getattr",
        ),
        "functools.partial": (pickle.dumps(Calls(functools.partial(os.system, shell)), 2), r"functools\.partial"),
        "subprocess": (calling(subprocess.check_call, ["touch", canary]), r"\.check_call"),
        "exec": (calling(builtins.exec, python), r"__builtin__\.exec"),
        "eval": (calling(builtins.eval, python), r"__builtin__\.eval"),
        "timeit": (calling(timeit.timeit, python, "pass", time.perf_counter, 1), r"timeit\.timeit"),
        "nested pickle": (calling(pickle.loads, calling(os.system, shell)), r"pickle\.loads"),
        "map over a list": (calling(list, Calls(map, os.system, [shell])), "map"),
        "hidden in a checkpoint": (pickle.dumps({"epoch": -1, "model": None, "names": system}, 2), r"posix\.system"),
        "hidden in a key": (pickle.dumps({"model": [(1, system)]}, 2), r"posix\.system"),
    }
    for title, (program, says) in programs.items():
        yield Hostile(title, archive(program), says, program)


def _names(canary: str) -> Iterator[Hostile]:
    refused = {
        "torch": ("load", "Tensor"),
        "torch.jit": ("load",),
        "torch.hub": ("load",),
        "torch.storage": ("UntypedStorage", "_load_from_bytes"),
        "torch._tensor": ("_rebuild_from_type_v2",),
        "torch._utils": ("_rebuild_sparse_tensor", "_rebuild_device_tensor_from_numpy"),
        "torch.nn.modules.module": ("os.system", "torch.load"),
        "torch.nn.modules": ("module.torch.load",),
        "torch.utils.cpp_extension": ("load_inline",),
        "importlib": ("import_module",),
        "ctypes": ("CDLL",),
        "copyreg": ("_reconstructor", "__newobj__"),
        "operator": ("attrgetter",),
        "types": ("FunctionType", "CodeType"),
        "shutil": ("rmtree",),
        "numpy": ("load",),
        "numpy.core.multiarray": ("_reconstruct",),
        "vajra_edge.weights.checkpoint": ("load",),
        "__builtin__": ("bytearray", "compile", "__import__", "type"),
    }
    for module, attributes in refused.items():
        for attribute in attributes:
            program = PROTO + name(module, attribute) + text(canary) + b"\x85R."
            yield Hostile(f"calls {module}.{attribute}", archive(program), "which no VajraV1 checkpoint needs")
    inert = PROTO + name("vajra.utils", "os.system") + text(f"touch {canary}") + b"\x85R."
    yield Hostile("a class of upstream that is called", archive(inert), "no network")
    yield Hostile(
        "a class of another library", archive(PROTO + name("models.yolo", "Model") + b")\x81."), "export them to ONNX"
    )
    yield Hostile("an unprintable name", archive(PROTO + b"cos\x1b\nsystem\n."), "the name|well-formed")


def tensor(size: bytes, stride: bytes, *, offset: int = 0, elements: int = 2, kind: str = "FloatStorage") -> bytes:
    """The opcodes that make a tensor on storage 0."""
    storage = b"(" + text("storage") + name("torch", kind) + text("0") + text("cpu") + number(elements) + b"tQ"
    return (
        name("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + storage
        + number(offset)
        + size
        + stride
        + b"\x89"
        + ORDERED
        + b"tR"
    )


def _tensors() -> Iterator[Hostile]:
    tera = 10**12
    one, far = number(1) + b"\x85", number(tera) + b"\x85"
    programs = {
        "a tera-element view of two": (tensor(far, one), "does not fit"),
        "the same with stride 0": (tensor(far, number(0) + b"\x85"), "does not fit"),
        "a million by a million": (tensor(number(10**6) * 2 + b"\x86", number(0) * 2 + b"\x86"), "does not fit"),
        "a stride beyond the storage": (tensor(number(2) + b"\x85", far), "does not fit"),
        "an offset beyond the storage": (tensor(one, one, offset=tera), "does not fit"),
        "a negative offset": (tensor(one, one, offset=-8), "whole numbers"),
        "a negative size": (tensor(number(-1) + b"\x85", one), "whole numbers"),
        "a size of text": (tensor(text("12"), text("12")), "whole numbers"),
        "two sizes, one stride": (tensor(number(1) * 2 + b"\x86", one), "strides"),
        "nine dimensions": (tensor(b"(" + number(1) * 9 + b"t", b"(" + number(1) * 9 + b"t"), "dimensions"),
        "a storage larger than its record": (tensor(one, one, elements=tera), "claims"),
        "a storage of another item size": (tensor(one, one, kind="DoubleStorage"), "claims"),
        "a storage as two types": (tensor(one, one) + tensor(one, one, kind="IntStorage") + b"\x86", "two types"),
        "a storage without a type": (tensor(one, one, kind="float32"), "not described"),
        "a number as storage": (PROTO + number(3) + b"Q", "well-formed"),
        "a sparse rebuild": (name("torch._utils", "_rebuild_parameter") + b"(N\x89" + ORDERED + b"tR", "not described"),
    }
    for title, (program, says) in programs.items():
        yield Hostile(title, archive(PROTO + program.removeprefix(PROTO) + b".", {"0": bytes(8)}), says)


def _memory() -> Iterator[Hostile]:
    module = name("vajra.nn.vajra", "DetectionModel") + b")\x81"
    cycle = module + b"q\x00}" + text("_modules") + b"}" + text("a") + b"h\x00ssb."
    shared = module
    for depth in range(20):
        slot = bytes([depth])
        shared = (
            module
            + b"}"
            + text("_modules")
            + b"}("
            + text("a")
            + shared
            + b"q"
            + slot
            + text("b")
            + b"h"
            + slot
            + b"usb"
        )
    punycode = name("_codecs", "encode") + text("\xfc" * 100_000) + text("punycode") + b"\x86R."
    programs = {
        "a tuple nested a million deep as a key": (b"})" + b"\x85" * 10**6 + b"Ns.", "no plain value"),
        "a key with 2 ** 60 parts": (b"})" + b"q\x00h\x00\x86" * 60 + b"Ns.", "no plain value"),
        "a set of tuples": (name("__builtin__", "set") + b"])\x85a\x85R.", "no plain value|not made of a list"),
        "modules in a circle": (cycle, "without end"),
        "2 ** 20 modules": (shared + b".", "without end"),
        "a slow codec": (punycode, "encodes text"),
        "four gigabytes of text": (b"X\xff\xff\xff\xffabc.", "well-formed"),
        "too many opcodes": (b"N" * 2_100_000 + b".", "opcodes"),
        "a pickle of nine megabytes": (text("a" * (9 << 20)) + b".", "data.pkl has"),
    }
    for title, (program, says) in programs.items():
        yield Hostile(title, archive(PROTO + program), says)


def _malformed() -> Iterator[Hostile]:
    programs = {
        "nothing": (b"", "well-formed"),
        "no end": (PROTO + b"N", "well-formed"),
        "an end in the middle": (PROTO + b"(N.", "ends in the middle"),
        "an empty stack": (PROTO + b"R.", "well-formed"),
        "an unknown slot": (PROTO + b"h\x07.", "well-formed"),
        "protocol 5": (pickle.dumps({}, 5), "protocol 5|opcode"),
        "an extension": (PROTO + b"\x82\x01.", "opcode EXT1"),
        "a persistent name": (PROTO + b"Pevil\n.", "opcode PERSID"),
        "an item of a tuple": (PROTO + b")NNs.", "no dictionary"),
        "appended to a dictionary": (PROTO + b"}Na.", "no list"),
        "a called text": (PROTO + text("os.system") + b")R.", "no function"),
        "an object of a text": (PROTO + text("os.system") + b")\x81.", "no class"),
        "state of a list": (PROTO + b"]}b.", "no plain object"),
        "a number": (PROTO + b"K\x07.", "no network"),
        "a list": (PROTO + b"].", "no network"),
        "a checkpoint without a network": (pickle.dumps({"epoch": 3, "model": None, "ema": "x"}, 2), "no network"),
        "a state_dict of numbers": (pickle.dumps({"0.stem1.conv.weight": 1}, 2), "not a VajraV1"),
        "a device with a path": (PROTO + name("torch", "device") + text("../x") + b"\x85R.", "device"),
    }
    for title, (program, says) in programs.items():
        yield Hostile(f"program: {title}", archive(program), says)


def _containers() -> Iterator[Hostile]:
    sound = archive(pickle.dumps({}, 2), {"0": bytes(64)})
    directory = sound.index(b"PK\x01\x02")
    entry_bytes = 46 + len(f"{FOLDER}/data.pkl")
    data = {f"{FOLDER}/data.pkl": pickle.dumps({}, 2)}
    bomb = zipped({f"{FOLDER}/data.pkl": bytes(50 << 20)}, zipfile.ZIP_DEFLATED)
    repeated = sound[directory : directory + entry_bytes]
    files = {
        "an empty file": (b"", "not a checkpoint"),
        "a text": (b"hello world", "not a checkpoint"),
        "a bare pickle": (pickle.dumps({}, 2), "older than torch 1.6"),
        "a zip bomb": (bomb, "compressed"),
        "an encrypted record": (_patched(sound, directory + 8, b"\x01\x00"), "encrypted"),
        "a name that climbs": (zipped({**data, f"{FOLDER}/../../etc/cron.d/x": b"x"}), "leaves the archive"),
        "an absolute name": (zipped({**data, "/etc/passwd": b"x"}), "leaves the archive"),
        "a name with a backslash": (zipped({**data, f"{FOLDER}/..\\x": b"x"}), "leaves the archive"),
        "a drive": (zipped({**data, f"{FOLDER}/c:/x": b"x"}), "leaves the archive"),
        "two folders": (zipped({**data, "other/data/0": b"x"}), "several folders"),
        "a tensor record with a name": (zipped({**data, f"{FOLDER}/data/../0": b"x"}), "leaves the archive"),
        "a tensor record without a number": (zipped({**data, f"{FOLDER}/data/x": b"x"}), "without a number"),
        "no data.pkl": (zipped({f"{FOLDER}/version": b"3"}), "no data.pkl"),
        "a TorchScript program": (zipped({**data, f"{FOLDER}/code/a.py": b"x"}), "TorchScript"),
        "the byte order of another machine": (zipped({**data, f"{FOLDER}/byteorder": b"big"}), "byte order"),
        "records that overlap": (_with_directory(sound, directory, repeated * 400), "lies about its place"),
        "a directory of two gigabytes": (
            _patched(sound, len(sound) - 10, struct.pack("<I", 2**31)),
            "claim a directory",
        ),
        "bytes before": (b"PK\x03\x04junk" + sound, "does not end where"),
        "bytes after": (sound + b"junk", "its end is missing"),
        "half a file": (sound[: len(sound) // 2], "its end is missing"),
        "a size that lies": (_patched(sound, directory + 24, struct.pack("<I", 2**31)), "lies about its place"),
        "too many records": (zipped({**data, **{f"{FOLDER}/x{i}": b"" for i in range(20_001)}}), "records, more than"),
    }
    for title, (content, says) in files.items():
        yield Hostile(f"container: {title}", content, says)


def _patched(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def _with_directory(content: bytes, at: int, directory: bytes) -> bytes:
    count = directory.count(b"PK\x01\x02")
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), at, 0)
    return content[:at] + directory + end
