from __future__ import annotations

import pytest
from odd_files import ODD_FILES, put

from vajra_edge import durable


@pytest.mark.parametrize("form", ODD_FILES)
def test_what_is_no_file_is_neither_waited_for_nor_read(tmp_path, form):
    put(form, tmp_path / "file")
    with pytest.raises(durable.NotAFile) as raised:
        durable.read(tmp_path / "file")
    assert raised.value.filename == str(tmp_path / "file")
    assert raised.value.strerror


def test_a_file_is_read_whole_through_a_link_too(tmp_path):
    content = bytes(range(256)) * 1000
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "link").symlink_to("file")
    assert durable.read(tmp_path / "link", len(content)) == content
    with pytest.raises(durable.NotAFile, match="256000 bytes"):
        durable.read(tmp_path / "file", len(content) - 1)
    with pytest.raises(FileNotFoundError):
        durable.read(tmp_path / "absent")


def test_the_remedy_for_what_is_no_file_is_to_remove_it(tmp_path):
    put("a pipe", tmp_path / "file")
    with pytest.raises(durable.StoreError) as raised, durable.reported(tmp_path, "read"):
        durable.read(tmp_path / "file")
    assert raised.value.remedy == "remove it"
    assert str(tmp_path / "file") in raised.value.message
