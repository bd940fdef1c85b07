"""A C library of CUDA behind ``ctypes``: typed calls whose outputs are returned, as cuda-python's are."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vajra_edge.backends.cuda.check import CudaUnavailable
from vajra_edge.backends.cuda.declared import Call


class Linked:
    """The declared functions of one library.

    Args:
        library: it, loaded.
        calls: what it has to have.

    Raises:
        CudaUnavailable: it lacks one.
    """

    def __init__(self, library: ctypes.CDLL, calls: Mapping[str, Call]) -> None:
        self._calls = {name: (_function(library, call), call.parameters) for name, call in calls.items()}

    def call(self, name: str, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """Call one; the GIL is not held meanwhile.

        Args:
            name: of the function.
            arguments: its inputs, in its order.

        Returns:
            Its status, then its outputs; an address is an int.
        """
        function, parameters = self._calls[name]
        given, made, passed = iter(arguments), [], []
        for parameter in parameters:
            if parameter.pointed:
                made.append(parameter.ctype(next(given)) if parameter.exchanged else parameter.ctype())
                passed.append(ctypes.byref(made[-1]))
            else:
                passed.append(next(given))
        return (function(*passed), *(one.value or 0 for one in made))


def _function(library: ctypes.CDLL, call: Call) -> Callable[..., int]:
    try:
        function = getattr(library, call.name)
    except AttributeError as error:
        raise CudaUnavailable(
            f"{library._name} has no {call.name}",  # noqa: SLF001  ctypes has no other word for a library's path
            remedy="install the CUDA of this JetPack or driver anew; 12.6 and later are supported",
        ) from error
    function.argtypes = [ctypes.POINTER(one.ctype) if one.pointed else one.ctype for one in call.parameters]
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]  # ctypes' functions have no types
