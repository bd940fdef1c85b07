"""deploy/schemas is what the code says, every topic is in it, and its references lead somewhere."""

from __future__ import annotations

import inspect
import json
import re

import pytest
import yaml
from schema_generator import FOLDER, generator

from vajra_edge.mqtt.topics import Topic, Topics


@pytest.fixture(scope="module")
def generate():
    return generator()


def test_every_file_is_what_the_code_says_and_no_other_is_there(generate):
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir() if path.is_file()}
    del there["generate.py"]
    assert there == generate.files(), "run: python deploy/schemas/generate.py"


def test_every_topic_is_a_channel_with_its_quality_of_service(generate):
    document = yaml.safe_load((FOLDER / "asyncapi.yaml").read_text(encoding="utf-8"))
    topics = Topics("{root}", "{device}")
    rows = [value for value in vars(Topics).values() if isinstance(value, Topic)]
    for name, function in inspect.getmembers(Topics, inspect.isfunction):
        if inspect.get_annotations(function).get("return") == "Topic":
            rows.append(getattr(topics, name)("{verb}" if name in ("request", "response") else "{camera}"))
    channels = {channel["address"]: name for name, channel in document["channels"].items()}
    assert channels.keys() == {topics.path(row) for row in rows}
    told = {
        one["channel"]["$ref"].rpartition("/")[2]: one["bindings"]["mqtt"] for one in document["operations"].values()
    }
    for row in rows:
        mqtt = told[channels[topics.path(row)]]
        assert (mqtt["qos"], mqtt.get("retain", False)) == (row.qos, row.retain)


def test_every_parameter_and_reference_leads_somewhere(generate):
    text = (FOLDER / "asyncapi.yaml").read_text(encoding="utf-8")
    for channel in yaml.safe_load(text)["channels"].values():
        assert set(channel["parameters"]) == set(re.findall(r"\{(\w+)\}", channel["address"]))
    for name in re.findall(r"\$ref: \./(\S+)", text):
        assert (FOLDER / name).is_file()
    for path in FOLDER.glob("*.json"):
        schema = json.loads(path.read_text(encoding="utf-8"))
        assert set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema))) == set(schema.get("$defs", {}))
        assert "prefixItems" not in json.dumps(schema), "is of a later draft"
