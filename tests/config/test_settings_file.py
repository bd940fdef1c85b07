"""Settings files as editors, other systems and power cuts leave them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from vajra_edge.config import text_file
from vajra_edge.config.settings import load
from vajra_edge.config.settings_file import parsed, tables
from vajra_edge.errors import SettingsError

GOOD = '[weights]\npath = "/w.onnx"\n[mqtt]\nhost = "broker"\n'


def refused(path: Path, exit_code: int = 78) -> str:
    with pytest.raises(SettingsError) as caught:
        load(path, environ={})
    line = str(caught.value)
    assert caught.value.exit_code == exit_code
    assert str(path) in line
    assert "hunter2" not in line
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbf" + GOOD.encode(), GOOD.replace("\n", "\r\n").encode(), GOOD.rstrip().encode()]
)
def test_what_editors_do_is_borne(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.toml").write_bytes(content)
    assert load(tmp_path / "c.toml", environ={}).mqtt.host == "broker"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; save it whole"),
        (b"\n \r\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"\0" * 512, "512 NUL bytes"),
        (GOOD.encode() + b"\0\0", "NUL byte in line 5"),
        (GOOD.encode("utf-16"), "is UTF-16 text"),
        (GOOD.encode("utf-16-be"), "NUL byte"),
        ('[mqtt]\nusername = "h\u00fcter"\n'.encode("latin-1"), "line 2 holds a letter in another encoding"),
        (GOOD[:-9].encode(), "half-written"),
        (GOOD[:16].encode(), "half-written"),
        (b'[weights]\npath = "/w"\n[mq', "half-written"),
        (b"[mqtt]\ntls = tru", "half-written"),
        (b"[mqtt]\nhost = hunter2", "in line 2; texts stand in quotation marks"),
        (b"[detect]\nconfidence = 0,4\niou = 1\n", "in line 2; write a decimal point"),
        (b"[mqtt]\n<<<<<<< ours\nport = 1\n", "in line 2; take out what a merge has left"),
        (b'{"mqtt": {"host": "hunter2"}}', "in line 1"),
        (b"[mqtt]\nhost: hunter2\nport = 1\n", "in line 2; write key = value: a colon is YAML's"),
        (b"[mqtt]\nhost = hunter2\nport = 1\n", "in line 2; texts stand in quotation marks"),
        (b"[mqtt]\ntls = True\nport = 1\n", "in line 2; write true or false"),
        ("[mqtt]\nhost = \u201chunter2\u201d\nport = 1\n".encode(), "U+201C"),
        ("[mqtt]\nhost\u00a0= 'hunter2'\nport = 1\n".encode(), "U+00A0"),
        (b'[mqtt]\npassword_file = "C:\\hunter2"\nport = 1\n', "backslashes"),
        (b'[mqtt]\nusername = "hunter2\nport = 1\n', "in line 2"),
        (b'[mqtt]\n"hunter2" = 1\n"hunter2" = 2\nport = 1\n', "in line 3"),
        (b"[mqtt]\nport = " + b"9" * 5000 + b"\n", "not valid TOML"),
        (b"a = " + b"[" * 5000 + b"\n", "not valid TOML"),
        (b"#" * (1024 * 1024 + 1), "larger than 1024 KiB"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "c.toml").write_bytes(content)
    assert said in refused(tmp_path / "c.toml")


def test_every_beginning_of_a_file_is_taken_whole_or_refused_in_words(tmp_path: Path) -> None:
    """An editor that truncates and then writes can be met at any byte."""
    text = GOOD + '[[cameras]]\nid = "gate"\nsource = "rtsp://u:hunter2@cam/1"\n'
    for end in range(len(text)):
        (tmp_path / "c.toml").write_text(text[:end])
        try:
            load(tmp_path / "c.toml", environ={})
        except SettingsError as error:
            assert "hunter2" not in str(error)  # noqa: PT017  both outcomes are right


def test_a_missing_file_a_folder_and_a_pipe_are_told_apart(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    assert "No such file" in refused(tmp_path / "none.toml")
    assert "--config" in refused(tmp_path / "none.toml")
    assert "is a folder" in refused(tmp_path)
    assert "pipe or device" in refused(tmp_path / "pipe")
    assert "symbolic link" in refused(tmp_path / "loop")


@pytest.mark.parametrize("call", ["open", "read"])
@pytest.mark.parametrize(
    ("number", "said", "exit_code"),
    [
        (errno.EACCES, "let uid", 78),
        (errno.ELOOP, "symbolic links", 78),
        (errno.EIO, "check the disk", 1),
        (errno.ESTALE, "check the network drive", 1),
        (errno.ETIMEDOUT, "check the network drive", 1),
        (errno.ENOMEM, "memory", 1),
        (errno.ENFILE, "files open", 1),
        (errno.EMFILE, "LimitNOFILE", 1),
    ],
)
def test_systemd_tries_again_where_the_system_failed_to_read_the_file_and_not_where_it_forbids_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, said: str, exit_code: int
) -> None:
    (tmp_path / "c.toml").write_text(GOOD)

    def fails(*_: object) -> bytes:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(text_file.os, call, fails)
        line = refused(tmp_path / "c.toml", exit_code)
    assert os.strerror(number) in line
    assert said in line


def test_a_replaced_file_and_a_swapped_link_are_followed(tmp_path: Path) -> None:
    link = tmp_path / "c.toml"
    for host in ("one", "two"):
        (tmp_path / host).write_text(GOOD.replace("broker", host))
        (tmp_path / "new").symlink_to(host)
        (tmp_path / "new").replace(link)
        assert load(link, environ={}).mqtt.host == host


def test_one_table_is_read_out_of_a_damaged_file() -> None:
    text = 'device_id = "d"\n[weights\npath=\n[mqtt] # ours\nhost = "b"\n[[cameras]]\nid = \n[engine]\n'
    parts = tables(text)
    assert parsed(parts["mqtt"]) == {"host": "b"}
    assert parsed(parts[""]) == {"device_id": "d"}
    assert parsed(parts["other"]) == {}
