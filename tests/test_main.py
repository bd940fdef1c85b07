from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vajra_edge.__main__ import main
from vajra_edge.version import VERSION


def test_an_error_of_ours_is_one_line_and_its_exit_code(capsys, tmp_path):
    assert main(["doctor", "--config", str(tmp_path / "none.toml"), "--quiet"]) == 1
    assert main(["run", "--config", str(tmp_path / "none.toml")]) == 78
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("vajra-edge: settings file ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["frobnicate"], ["run", "--no-such"], ["bench", "--seconds", "x"]])
def test_a_wrong_command_line_is_exit_code_two(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err


def test_the_version_stands_in_the_package_alone():
    root = Path(__file__).resolve().parents[1]
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in settings["project"]["dynamic"]
    assert settings["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "vajra_edge.version.VERSION"}


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vajra-edge {VERSION}\n"
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for verb in ("run", "demo", "rebuild", "status", "watch", "doctor", "bench"):
        assert verb in shown


def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} -m vajra_edge --help | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
