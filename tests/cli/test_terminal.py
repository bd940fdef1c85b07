from __future__ import annotations

import pytest

from vajra_edge.cli.terminal import inert, inert_document


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("401 \x1b]0;title\x07", r"401 \x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("gate\u202etxt.exe", r"gate\u202etxt.exe"),
        ("over\rwritten", r"over\rwritten"),
    ],
)
def test_what_a_terminal_obeys_is_shown_instead(said, shown):
    assert inert(said) == shown


def test_text_of_any_language_and_lines_stay():
    assert inert("Tor Süd — 門 \U0001f6aa\nopen") == "Tor Süd — 門 \U0001f6aa\nopen"


def test_a_document_is_made_inert_to_its_last_text():
    document = {"cameras": [{"id": "a", "reason": "\x1b[2J", "fps": 5.0}], "why": ["\x07"], "x\x1b": None}
    assert inert_document(document) == {
        "cameras": [{"id": "a", "reason": r"\x1b[2J", "fps": 5.0}],
        "why": [r"\x07"],
        r"x\x1b": None,
    }
