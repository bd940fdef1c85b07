from __future__ import annotations

import hashlib
import os

import pytest
import tiny

from vajra_edge.build.request import BuildRequest
from vajra_edge.build.worker import run
from vajra_edge.errors import VajraError
from vajra_edge.plans.spec import EngineSpec
from vajra_edge.tasks.load import RunArguments, load


@pytest.fixture
def stored(tmp_path):
    weights = tmp_path / "tiny.onnx"
    weights.write_bytes(tiny.network())
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    return run(BuildRequest(weights, digest, "onnxruntime", EngineSpec(), tmp_path / "state", 1 << 30), lambda _: None)


def test_a_plan_of_the_store_is_opened_by_the_first_digits_of_its_fingerprint(stored, tmp_path):
    for digits in (8, 64):
        runner = load(stored.fingerprint[:digits], RunArguments(), tmp_path / "state")
        assert runner.signature.class_names == tiny.NAMES
        runner.close()


def test_a_stored_plan_is_as_it_was_built(stored, tmp_path):
    for arguments, told in (
        (RunArguments(batch=2), "batch 2 is above the 1"),
        (RunArguments(img_size=512), "has img_size=256,256"),
        (RunArguments(device=0), "was built for cpu, not gpu:0"),
    ):
        with pytest.raises(VajraError, match=told):
            load(stored.fingerprint, arguments, tmp_path / "state")


def test_a_fingerprint_that_no_plan_has_names_the_store(stored, tmp_path):
    with pytest.raises(VajraError, match=r"0 plans of .*state have the fingerprint 00000000"):
        load("0" * 8, RunArguments(), tmp_path / "state")


@pytest.mark.skipif(os.geteuid() != 0, reason="absent here: root")
def test_root_does_not_run_the_plans_of_somebody_else(stored, tmp_path):
    """They are programs, signed with a key of whoever owns the store."""
    os.chown(tmp_path / "state", 65534, 65534)
    with pytest.raises(VajraError, match=r"are nobody's, and root would run them .*; type runuser -u nobody --"):
        load(stored.fingerprint, RunArguments(), tmp_path / "state")
