from __future__ import annotations

import pytest

from vajra_edge.errors import UnsupportedSpec
from vajra_edge.offline.phrasing import users_words


@pytest.mark.parametrize(
    ("remedy", "said"),
    [
        ("set engine.precision = fp16", "set half=True"),
        ("set [engine] backend = tensorrt, or target = cpu", "set format=engine, or device=cpu"),
        ("lower engine.workspace_gib, or leave it unset", "lower workspace, or leave it unset"),
        ("set [engine] simplify = false", "set simplify=False"),
        ("set [engine] batch = 4, export it with a dynamic batch", "set batch=4, export it with a dynamic batch"),
        ("add images, raise [calibration] fraction, or lower [engine] batch", "raise fraction, or lower batch"),
        ("set engine.target = dla:0", "set device=dla:0"),
        ("copy the file again", "copy the file again"),
    ],
)
def test_settings_are_called_by_their_arguments(remedy, said):
    with pytest.raises(UnsupportedSpec) as caught, users_words():
        raise UnsupportedSpec("no", remedy=remedy)
    assert said in str(caught.value)
