from __future__ import annotations

import os
import threading

import pytest

from vajra_edge.config.changes import Action
from vajra_edge.config.settings import load
from vajra_edge.daemon import named_files
from vajra_edge.daemon.file_watcher import digest, reload
from vajra_edge.errors import SettingsError

START = '[weights]\npath = "/w.onnx"\n[detect]\nconfidence = 0.3\n'


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(START)
    return path


def test_what_can_be_changed_is_taken_and_what_needs_a_restart_is_named(config):
    running = load(config)
    config.write_text(
        'device_id = "other"\n'
        + START.replace("0.3", "0.4")
        + '[store]\nstate_dir = "/elsewhere"\nmax_bytes = 2000000\n[service]\nthreads = 3\nsettle_s = 9.0\n'
    )
    reloaded = reload(running, config)
    assert reloaded.restart == ("device_id", "service.threads", "store.state_dir")
    kept = reloaded.settings
    assert (kept.device_id, kept.store.state_dir, kept.service.threads) == (None, running.store.state_dir, None)
    assert (kept.detect.confidence, kept.store.max_bytes, kept.service.settle_s) == (0.4, 2000000, 9.0)
    assert reloaded.changes.fields == ("detect.confidence", "service.settle_s", "store.max_bytes")
    assert reloaded.changes.actions == {Action.APPLY}
    again = reload(kept, config)
    assert again.changes.fields == ()
    assert again.restart == reloaded.restart


def test_an_invalid_file_is_refused(config):
    running = load(config)
    config.write_text("[weights]\n")
    with pytest.raises(SettingsError, match=r"weights\.path is missing"):
        reload(running, config)


def test_the_environment_and_overrides_count_at_a_reload_as_at_the_start(config, monkeypatch):
    monkeypatch.setenv("VAJRA_EDGE_DETECT__CONFIDENCE", "0.9")
    running = load(config, {"mqtt": {"port": 1234}})
    assert reload(running, config, {"mqtt": {"port": 1234}}).changes.fields == ()


def test_the_digest_follows_the_content(config, tmp_path):
    before = digest(config)
    config.write_text(START + "\n")
    assert digest(config) != before
    with pytest.raises(SettingsError, match="the running settings stay"):
        digest(tmp_path / "gone.toml")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ('username = "me"\npassword_file = "{}/none"\n', r"none cannot be read: No such file"),
        ('username = "me"\npassword_file = "{}/export"\n', r"export holds a variable"),
        ('tls = true\nca_file = "{}/none"\n', r"needs .*none, which cannot be read: No such file"),
        ('tls = true\nca_file = "{}/export"\n', r"holds no certificate authority"),
        ('tls = true\nca_file = "{}/pipe"\n', r"is not a file but a pipe"),
    ],
)
def test_a_running_daemon_does_not_leave_its_broker_for_a_file_that_cannot_be_used(config, tmp_path, fields, said):
    (tmp_path / "export").write_text("MQTT_PASSWORD=hunter2\n")
    os.mkfifo(tmp_path / "pipe")
    running = load(config)
    config.write_text(f"{START}[mqtt]\n{fields.format(tmp_path)}")
    with pytest.raises(SettingsError, match=rf"the new settings are not taken: .*{said}") as caught:
        reload(running, config)
    assert "hunter2" not in str(caught.value)
    started_so = load(config)
    config.write_text(f"{START}[mqtt]\nport = 5\n{fields.format(tmp_path)}")
    assert reload(started_so, config).changes.fields == ("mqtt.port",)


def test_a_disk_that_hangs_says_nothing_against_the_settings(config, monkeypatch):
    hangs = threading.Event()
    monkeypatch.setattr(named_files, "LIMIT_S", 0.01)
    monkeypatch.setattr(named_files, "_refusal", lambda _: hangs.wait(60.0))
    running = load(config)
    config.write_text(f'{START}[mqtt]\ntls = true\nca_file = "/mnt/ca.pem"\n')
    assert reload(running, config).settings.mqtt.tls
    hangs.set()
