"""Settings file: TOML, read whole; what is wrong with it is said in words, with the line and never with its content."""

from __future__ import annotations

import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

from vajra_edge.config import text_file
from vajra_edge.config.text_file import Unreadable
from vajra_edge.errors import SettingsError, SettingsUnread

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST_BYTES = 1024 * 1024
"""64 cameras with every field set are 100 kB."""

_START = "pass --config, or copy deploy/config.example.toml there"
_AGAIN = "save it whole, or restore it from a copy"


def read(path: Path) -> dict[str, Any]:
    """The tables of the file.

    Raises:
        SettingsError: it is missing, unreadable, empty, half-written or no TOML.
        SettingsUnread: the system failed to read it, and may do so the next time.
    """
    text = text_file.read(path, MOST_BYTES)
    if isinstance(text, Unreadable):
        missing = not path.exists() if "No such file" in text.what else False
        refused = SettingsUnread if text.passing else SettingsError
        raise refused(f"settings file {path} {text.what}", remedy=_START if missing else text.remedy, path=path)
    if not text.strip():
        raise SettingsError(f"settings file {path} is empty", remedy=_AGAIN, path=path)
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise SettingsError(f"settings file {path} is not valid TOML: too many brackets", path=path) from None
    except ValueError as error:  # a number of thousands of digits too
        raise _invalid(path, text, error) from None


def tables(text: str) -> dict[str, str]:
    """The text of each table of a file that may be damaged elsewhere, by its name; the top's is empty."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in text.splitlines():
        header = re.match(r"^\s*\[\s*([\w-]+)\s*\]\s*(?:#.*)?$", line)
        if header or line.lstrip().startswith("["):
            name = header[1] if header else "other"
            found.setdefault(name, [])
        else:
            found[name].append(line)
    return {table: "\n".join(lines) for table, lines in found.items()}


def parsed(text: str) -> dict[str, Any]:
    """The values of a text; none where it is not TOML."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return {}


def _invalid(path: Path, text: str, error: ValueError) -> SettingsError:
    lines = text.splitlines()
    told = re.search(r"\(at line (\d+), column \d+\)", str(error))
    number = int(told[1]) if told else len(lines)
    hint = _hint(lines[number - 1]) if number <= len(lines) else ""
    if told is None or (number >= len(lines) > 1 and not text.endswith("\n") and (not hint or _may_be_cut(lines[-1]))):
        what = f"ends in the middle of line {len(lines)}: it looks half-written"
        return SettingsError(f"settings file {path} is not valid TOML: it {what}", remedy=_AGAIN, path=path)
    words = str(error).partition(" (at ")[0]
    line = f"settings file {path} is not valid TOML: {_safe(words)} in line {number}"
    return SettingsError(line, remedy=hint or "correct that line", path=path)


def _may_be_cut(line: str) -> bool:
    """Whether a last line is what is left of a right one, and not what somebody meant."""
    return bool(re.search(r"=\s*(?:t|tr|tru|f|fa|fal|fals)$", line)) or line.count('"') % 2 == 1


def _safe(words: str) -> str:
    """Without what the parser quotes of the file: a key, or a character."""
    return re.sub(r"\(.*\)|'[^']{2,}'|\"[^\"]{2,}\"", "…", words)


def _hint(line: str) -> str:  # noqa: PLR0911  one return a habit
    """What people write who know other formats; the line is not quoted, it may hold a password."""
    bare = re.sub(r"\"[^\"]*\"|'[^']*'", "", line)
    strange = next((c for c in bare if ord(c) > 127 and unicodedata.category(c) in {"Cf", "Zs", "Cc", "Pi", "Pf"}), "")  # noqa: PLR2004  ASCII
    if strange:
        return f"it holds U+{ord(strange):04X}, a space or quotation mark of a word processor: write plain ones"
    if re.search(r"=\s*\d+,\d+\s*(?:#.*)?$", bare):
        return "write a decimal point, not a comma"
    if line.lstrip().startswith(("<<<<<<<", "=======", ">>>>>>>")):
        return "take out what a merge has left there"
    if re.match(r"^\s*[\w-]+\s*:", bare):
        return "write key = value: a colon is YAML's"
    if re.search(r"=\s*(True|False|None|yes|no|on|off|null)\b", bare, re.IGNORECASE):
        return "write true or false in small letters, and leave out what is not set"
    if re.search(r"=\s*[A-Za-z/][^\s\[\]{}]*\s*(?:#.*)?$", bare):
        return "texts stand in quotation marks"
    if "\\" in line:
        return "put a text with backslashes in single quotation marks"
    if line.count('"') % 2 or line.count("'") % 2:
        return "a quotation mark is missing, or one stands inside a text"
    return ""
