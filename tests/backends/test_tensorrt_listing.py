"""The stand-ins refuse what the real library would refuse; else the tests above them would prove nothing."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from backends.trt_listing import LISTINGS, signature, standin

from vajra_edge.backends.tensorrt import library
from vajra_edge.errors import BackendUnavailable


@pytest.mark.parametrize("version", LISTINGS)
def test_a_name_outside_the_listing_raises(version: str) -> None:
    trt = standin(version)
    config = trt.Builder(trt.ILogger()).create_builder_config()
    for name in ("made_up", "builder_optimization_levels"):
        with pytest.raises(AttributeError):
            getattr(config, name)
        with pytest.raises(AttributeError):
            setattr(config, name, 1)
    with pytest.raises(AttributeError):
        trt.BuilderFlag.MADE_UP  # noqa: B018  the look-up is what is tested
    with pytest.raises(AttributeError):
        trt.MadeUp  # noqa: B018  the look-up is what is tested


def test_each_release_has_its_own_names() -> None:
    assert hasattr(standin("10.3.0").BuilderFlag, "INT8")
    assert not hasattr(standin("11.4.0").BuilderFlag, "INT8")
    assert hasattr(standin("rtx-1.7.1"), "ComputeCapability")


@pytest.mark.parametrize("version", LISTINGS)
def test_a_call_of_another_shape_raises(version: str) -> None:
    trt = standin(version)
    builder = trt.Builder(trt.ILogger())
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1)
    config.set_memory_pool_limit(pool=trt.MemoryPoolType.WORKSPACE, pool_size=1)
    for arguments in (
        (),
        (trt.MemoryPoolType.WORKSPACE,),
        (trt.BuilderFlag.TF32, 1),
        (trt.MemoryPoolType.WORKSPACE, 1.5),
    ):
        with pytest.raises(TypeError):
            config.set_memory_pool_limit(*arguments)
    with pytest.raises(TypeError):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size=1)
    with pytest.raises(TypeError):
        trt.Builder("not a logger")
    with pytest.raises(TypeError):
        trt.OnnxParser(builder, trt.ILogger())


def test_a_signature_is_read_with_its_defaults() -> None:
    found = signature("parse(self: OnnxParser, model: typing_extensions.Buffer, path: str = None) -> bool")
    assert [(p.name, p.kind, p.required) for p in found.parameters] == [
        ("model", "typing_extensions.Buffer", True),
        ("path", "str", False),
    ]
    assert found.returns == "bool"


@pytest.mark.parametrize("version", ["7.2.1", "8.5.2", "8.6.2"])
def test_a_release_before_10_is_refused_in_so_many_words(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__=version))
    library.load.cache_clear()
    with pytest.raises(BackendUnavailable, match=rf"TensorRT {version} is not supported.*JetPack 6\.1"):
        library.load()
    library.load.cache_clear()
