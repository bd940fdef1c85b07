"""Equality of what a library computed: processors differ in the last digits of the largest values of a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np


def assert_near(found: Any, expected: Any, part: float = 1e-5) -> None:
    """Every value of ``found`` is that of ``expected``, within a ``part`` of the largest magnitude in ``expected``."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=part * np.abs(expected).max(initial=0), equal_nan=False)
