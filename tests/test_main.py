from __future__ import annotations

import json
import os
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


def ended(*arguments: str, code: str = "", stdout: int | object = subprocess.PIPE, **environ: str):
    """A command as a process of its own, or some code in its place."""
    command = [sys.executable, *(["-c", code] if code else ["-m", "vajra_edge"]), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), **environ}
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=environment, check=False)


@pytest.fixture
def settings(tmp_path):
    """A settings file whose path other encodings lack, weights that are not there, and nothing else."""
    path = tmp_path / "人…é😀.toml"
    path.write_text(f'[weights]\npath = "/none.pt"\n[store]\nstate_dir = "{tmp_path}/state"\n')
    return path


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--version"], ["doctor"], ["history"], ["history", "--json"]])
def test_an_output_that_takes_nothing_is_one_line_and_exit_code_one(settings, arguments, unbuffered):
    config = [] if arguments[0].startswith("-") else ["--config", str(settings)]
    with Path("/dev/full").open("wb") as full:
        done = ended(*arguments, *config, stdout=full, PYTHONUNBUFFERED=unbuffered)
    assert done.stderr.decode() == (
        "vajra-edge: standard output (/dev/full) cannot be written: No space left on device; "
        "make room there, or send the output elsewhere\n"
    )
    assert done.returncode == 1


def test_an_error_that_is_not_of_the_output_stays_a_bug_with_its_traceback():
    code = (
        "from vajra_edge.cli.output import prepared\nwith prepared():\n    open('/dev/full', 'w').write('x' * 100000)"
    )
    done = ended(code=code)
    assert done.returncode == 1
    assert b"Traceback" in done.stderr
    assert b"OutputError" not in done.stderr


def test_where_errors_cannot_be_told_their_exit_code_is_kept(tmp_path):
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "vajra_edge", "run", "--config", str(tmp_path / "none.toml")]
        assert subprocess.run(command, stderr=full, check=False).returncode == 78


@pytest.mark.parametrize("encoding", ["ascii:surrogateescape", "latin-1", "ascii:replace"])
def test_characters_that_the_outputs_encoding_lacks_are_escaped(settings, encoding):
    done = ended("doctor", "--config", str(settings), COLUMNS="300", PYTHONIOENCODING=encoding)
    assert done.stderr == b""
    shown = {
        "ascii": "\\u4eba\\u2026\\u00e9\\ud83d\\ude00.toml",
        "latin-1": "\\u4eba\\u2026é\\ud83d\\ude00.toml",
        "ascii:replace": "????.toml",
    }
    name = encoding.removesuffix(":surrogateescape")
    assert shown[name] in done.stdout.decode(name.partition(":")[0])


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_document_is_json_in_any_encoding(settings, encoding):
    done = ended("doctor", "--json", "--config", str(settings), PYTHONIOENCODING=encoding)
    checks = json.loads(done.stdout.decode(encoding))
    assert any(str(settings) in str(check) for check in checks)


def test_a_command_whose_output_was_closed_does_its_work():
    code = "import os, sys, vajra_edge.__main__ as m; sys.stdout = None; os.close(1); sys.exit(m.main(['--version']))"
    done = ended(code=code)
    assert (done.returncode, done.stderr) == (0, b"")
