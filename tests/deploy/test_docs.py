"""README and the pages: their tables are the code's own, every verb is explained, every link leads somewhere."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

from vajra_edge.cli.app import app
from vajra_edge.config.settings import leaf_fields
from vajra_edge.mqtt.topics import Topic, Topics
from vajra_edge.tasks.arguments import ExportArguments

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "docs"
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINKING = ("README.md", "vajra_edge/README.md", ".github/CONTRIBUTING.md", *PAGES)
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)")


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate_of_this_test", FOLDER / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES)
def test_generated_tables_are_what_the_code_says(generate, page):
    assert generate.rendered(PAGES[page]) == PAGES[page], "run: python deploy/docs/generate.py"


def test_a_table_that_somebody_edited_is_noticed(generate):
    page = PAGES["deploy/docs/settings.md"]
    edited = page.replace("| `mqtt.keepalive_s` | `30` |", "| `mqtt.keepalive_s` | `60` |")
    assert edited != page
    assert generate.rendered(edited) == page


@pytest.mark.parametrize("field", leaf_fields())
def test_every_setting_stands_in_the_table(field):
    assert f"| `{field}` |" in PAGES["deploy/docs/settings.md"]


def test_every_topic_stands_in_the_table(generate):
    members = [name for name, kind in inspect.get_annotations(Topics).items() if kind == "Topic"]
    members += [name for name, value in vars(Topics).items() if isinstance(value, Topic)]
    members += [
        name
        for name, function in inspect.getmembers(Topics, inspect.isfunction)
        if inspect.get_annotations(function).get("return") == "Topic"
    ]
    assert len(members) == len({topic.name for topic, _, _ in generate.PUBLISHED})
    for topic, _, _ in generate.PUBLISHED:
        assert f"| `{topic.name}` |" in PAGES["deploy/docs/messages.md"]


@pytest.mark.parametrize("argument", dataclasses.fields(ExportArguments), ids=lambda argument: argument.name)
def test_every_argument_of_export_stands_in_the_table_with_its_default(argument):
    assert f"| `{argument.name}` | `{argument.default!r}` |" in PAGES["deploy/docs/desk.md"]


@pytest.mark.parametrize("page", [page for page in LINKING if (ROOT / page).is_file()])
def test_every_link_leads_to_a_file_that_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target, heading in LINK.findall(text):
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), f"{page} links to {target}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in headings}


def test_readme_fits_and_gives_the_two_commands():
    assert len(README.splitlines()) <= 150
    assert "bash deploy/demo.sh" in README
    assert "bash tests/run.sh" in README


def test_readme_says_what_it_has_not_run_on_before_anything_else():
    first_screen = "\n".join(README.splitlines()[:20])
    assert "has not run on a Jetson" in first_screen


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_reached_from_readme(page):
    assert f"({page})" in README


@pytest.mark.parametrize(
    "command", app.registered_commands, ids=lambda command: command.name or command.callback.__name__
)
def test_every_verb_is_explained(command):
    verb = command.name or command.callback.__name__
    assert f"vajra-edge {verb}" in "".join(PAGES.values())


def test_every_path_of_the_design_is_there():
    _, _, table = (ROOT / "vajra_edge" / "README.md").read_text(encoding="utf-8").partition("## Where it is")
    paths = re.findall(r"`([a-z_/]+(?:/|\.py))`", table)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists() and not (ROOT / "vajra_edge" / path).exists()] == []
