from __future__ import annotations

import json
import os

import pytest
from odd_files import ODD_FILES, put

from vajra_edge import durable, state_file
from vajra_edge.bundles.keyring import Keyring
from vajra_edge.daemon import last_broker
from vajra_edge.errors import BundleError, StoreError
from vajra_edge.plans import pin
from vajra_edge.plans.audit_log import NAME, AuditEntry, AuditLog, Happened


@pytest.mark.parametrize("form", ODD_FILES)
def test_what_is_no_file_is_neither_waited_for_nor_read(tmp_path, form):
    put(form, tmp_path / "file")
    with pytest.raises(state_file.NotAFile) as raised:
        state_file.read(tmp_path / "file")
    assert raised.value.filename == str(tmp_path / "file")
    assert raised.value.strerror


@pytest.mark.parametrize("form", sorted(set(ODD_FILES) - {"a TiB of nothing"}))
def test_what_is_no_file_is_no_lock(tmp_path, form):
    put(form, tmp_path / "lock")
    with (
        pytest.raises(StoreError, match=r"it is no file.*remove it"),
        durable.reported(tmp_path, "written"),
        durable.locked(tmp_path / "lock"),
    ):
        pass


def test_a_file_is_read_whole_through_a_link_too(tmp_path):
    content = bytes(range(256)) * 1000
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "link").symlink_to("file")
    assert state_file.read(tmp_path / "link", len(content)) == content
    with pytest.raises(state_file.NotAFile, match="256000 bytes"):
        state_file.read(tmp_path / "file", len(content) - 1)
    with pytest.raises(FileNotFoundError):
        state_file.read(tmp_path / "absent")


def test_the_remedy_for_what_is_no_file_is_to_remove_it(tmp_path):
    put("a pipe", tmp_path / "file")
    with pytest.raises(StoreError) as raised, durable.reported(tmp_path, "read"):
        state_file.read(tmp_path / "file")
    assert raised.value.remedy == "remove it"
    assert str(tmp_path / "file") in raised.value.message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b"NaN",
        b"[-Infinity]",
        b"1e999",
        b"9" * 400,
        b"9" * 9000,
        b'"\\uD800"',
        b"[18446744073709551616]",
        b"-9223372036854775809",
    ],
)
def test_json_that_nobody_could_use_is_a_value_error(content):
    with pytest.raises(ValueError, match=r"."):
        state_file.parse(content)


@pytest.mark.parametrize("plain", [{"a": [1, -2.5, None, True, "é", "\U0001f600"]}, 2**63, 2**64 - 1, -(2**63), []])
def test_plain_values_come_back(plain):
    assert state_file.parse(json.dumps(plain).encode()) == plain


@pytest.mark.parametrize("form", ODD_FILES)
def test_what_lies_in_a_file_s_place_costs_what_it_would_have_said(tmp_path, form):
    """Each of these held the start for good, or took all memory."""
    for name in (pin.NAME, "broker.json"):
        put(form, tmp_path / name)
    assert pin.read(tmp_path) is None
    assert last_broker.recall(tmp_path) == {}


@pytest.mark.parametrize("number", ["1e999", "NaN", "9" * 5000])
def test_a_history_whose_last_line_has_no_number_goes_on(tmp_path, number):
    log = AuditLog(tmp_path)
    log.append(AuditEntry(Happened.BUILT))
    with (tmp_path / NAME).open("a") as file:
        file.write(f'{{"entry":{{"number":{number}}},"hmac":"x"}}\n')
    assert log.append(AuditEntry(Happened.SWAPPED)).number == 2


def test_a_broker_file_that_is_nested_too_deep_is_forgotten(tmp_path):
    (tmp_path / "broker.json").write_bytes(b"[" * 20_000)
    assert last_broker.recall(tmp_path) == {}


def test_a_pipe_among_the_trusted_keys_is_named(tmp_path):
    os.mkfifo(tmp_path / "fleet.pub")
    with pytest.raises(BundleError, match=r"fleet\.pub cannot be read: .*it is no file"):
        Keyring.load(tmp_path)
