from __future__ import annotations

import pytest

from vajra_edge.config.changes import Action
from vajra_edge.config.settings import load
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
