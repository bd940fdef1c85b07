from __future__ import annotations

import pytest

from vajra_edge.errors import StoreError
from vajra_edge.service.rejections import KEPT, Rejections


def test_what_was_rejected_is_known_after_a_restart_until_somebody_insists(tmp_path):
    path = tmp_path / "state" / "rejected.json"
    Rejections(path).add("a" * 64, "it found nothing")
    again = Rejections(path)
    assert again.reason("a" * 64) == "it found nothing"
    assert again.reason("b" * 64) == ""
    again.remove("a" * 64)
    again.remove("b" * 64)
    assert Rejections(path).reason("a" * 64) == ""
    assert [entry.name for entry in path.parent.iterdir()] == ["rejected.json"]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[1]", b"{", b"null"])
def test_a_damaged_file_is_forgotten_and_written_anew(tmp_path, content, caplog):
    path = tmp_path / "rejected.json"
    path.write_bytes(content)
    rejections = Rejections(path)
    assert rejections.reason("a" * 64) == ""
    assert "is forgotten" in caplog.text
    rejections.add("a" * 64, "slow")
    assert rejections.reason("a" * 64) == "slow"


def test_the_oldest_are_forgotten(tmp_path):
    rejections = Rejections(tmp_path / "rejected.json")
    for number in range(KEPT + 1):
        rejections.add(f"{number:064x}", "slow")
    assert rejections.reason(f"{0:064x}") == ""
    assert rejections.reason(f"{1:064x}") == "slow"


def test_a_folder_that_cannot_be_made_is_one_line_with_the_path(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Rejections(tmp_path / "file" / "state" / "rejected.json").add("a" * 64, "slow")
