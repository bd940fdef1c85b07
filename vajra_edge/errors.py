"""The exception tree.

Each error is one line: what is wrong with which value, then the remedy. The values are attributes too, and so are the
settings or arguments that it is about; whoever reads it reads of those in words of his own (see ``wording``)::

    VajraError                 exit code 1
    ├── UsageError             exit code 2: the command line cannot be understood
    ├── ArgumentError          an argument is of the wrong kind; a TypeError too
    ├── SettingsError          exit code 78 (EX_CONFIG): systemd does not restart on it
    │   └── SettingsUnread     exit code 1: the file could not be read, and may be the next time
    ├── WeightsError           the weights file cannot be used
    │   ├── UnsafeWeights      it asks for code or is not what it claims to be
    │   └── UnsignedWeights    trusted keys demand a signature that is not there
    ├── BundleError            exit code 10: a bundle of weights is refused
    ├── GraphError             the ONNX network cannot be used
    ├── CalibrationError       the images INT8 ranges come from are short or failing
    ├── EngineError
    │   ├── BackendUnavailable the library is absent or does not load
    │   │   └── BackendAbsent  it is not installed
    │   ├── UnsupportedSpec    this backend or device cannot do what is asked
    │   ├── BuildError         a build failed; ``permanent`` says whether trying again can help
    │   ├── BuildCancelled     a build was ended because somebody asked for it; says nothing about what was built
    │   ├── OutOfMemory        the device's memory did not suffice this time
    │   ├── PlanError          a stored plan is damaged, foreign or refused by the library
    │   │   └── ForeignPlan    it is whole, and another library release or device built it
    │   ├── InferenceError     the runner refused or failed
    │   │   └── NotFinite      it gave scores that are no numbers
    │   └── VerifyError        the accuracy check: the plan does not agree with its reference
    ├── StoreError             the engine store cannot be read or written
    ├── SourceError            a camera cannot be opened or read
    ├── DatasetError           a data.yaml, label file or image folder cannot be used
    ├── PublishError           the broker side
    └── ControlError           the daemon's socket
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vajra_edge.wording import Audience, Name, Phrase, Text, named, said, say, shown


class VajraError(Exception):
    """Anything that an operator can mend; anything else is a bug.

    Args:
        message: what is wrong, with the value.
        remedy: what to do about it; appended to the message.
        values: the values named in the message, kept as attributes in ``values``.

    Attributes:
        audience: in whose words ``str`` is; see ``told_to``.
    """

    exit_code = 1

    def __init__(self, message: Text, *, remedy: Text = "", **values: object) -> None:
        super().__init__(str(message))
        self.message = message
        self.remedy = remedy
        self.values = values
        self.audience = Audience.DAEMON

    @property
    def about(self) -> tuple[Name, ...]:
        """The settings and arguments that message and remedy name."""
        return named(self.text)

    @property
    def text(self) -> Phrase:
        """Message and remedy, to be put into the message of another error."""
        return say(self.message, "; ", self.remedy) if self.remedy else say(self.message)

    def __str__(self) -> str:
        return shown(" ".join(said(self.text, self.audience).split()))


@contextmanager
def told_to(audience: Audience) -> Iterator[None]:
    """Let errors of the body through, for this audience: the outermost one is who reads them."""
    try:
        yield
    except VajraError as error:
        error.audience = audience
        raise


class UsageError(VajraError):
    """The command line cannot be understood."""

    exit_code = 2


class ArgumentError(VajraError, TypeError):
    """An argument of export, val or predict is of a kind that it cannot be, as a text in the place of a switch."""


class SettingsError(VajraError):
    """A settings file or environment variable is invalid."""

    exit_code = 78


class SettingsUnread(SettingsError):
    """The settings file could not be read this time, for a reason that may pass: it says nothing of the settings."""

    exit_code = 1


class WeightsError(VajraError):
    """The weights file cannot be used."""


class UnsafeWeights(WeightsError):
    """The weights file asks for code to be run, or is not what it claims to be."""


class UnsignedWeights(WeightsError):
    """Trusted keys demand a signature, and no trusted one is there."""


class BundleError(VajraError):
    """A bundle is not signed by a trusted key, or not as it was made; nothing of it is used."""

    exit_code = 10


class GraphError(VajraError):
    """The ONNX network cannot be used."""


class CalibrationError(VajraError):
    """The calibration images are short or failing."""


class EngineError(VajraError):
    """The parent of everything between a graph and a runner."""


class BackendUnavailable(EngineError):
    """The backend's library is absent or does not load."""


class BackendAbsent(BackendUnavailable):
    """The backend's library is not installed."""


class UnsupportedSpec(EngineError):
    """This backend or this device cannot do what the specification asks."""


class BuildError(EngineError):
    """A build failed; ``values["layers"]`` or ``values["layer"]`` name the layers at fault, where they are known."""

    permanent = True


class BuildCancelled(EngineError):
    """A build was cancelled on request."""


class OutOfMemory(EngineError):
    """The memory of the device or of the machine did not suffice."""


class PlanError(EngineError):
    """A plan is damaged, foreign, or refused by the library."""


class ForeignPlan(PlanError):
    """A plan is whole, but was built by another library release or for another device than are here now."""


class InferenceError(EngineError):
    """A runner refused a batch or failed on it."""


class NotFinite(InferenceError):
    """The scores of an image hold what is no number: the computation broke, and its boxes say nothing.

    Args:
        whose: camera, file or frame; empty where whoever reads the output does not know it.
    """

    def __init__(self, whose: str = "") -> None:
        image = repr(whose) if whose else "an image"
        remedy = "choose a higher precision; where that is fp32, the network itself is damaged: train it again"
        super().__init__(f"the network's scores for {image} are not finite", remedy=remedy)


class VerifyError(EngineError):
    """A plan does not agree with its reference."""


class StoreError(VajraError):
    """The engine store cannot be read or written.

    Attributes:
        errno: of the system's refusal; None where it was not the system.
        verb: what was refused, ``read`` or ``written``; empty where it was not the system.
    """

    def __init__(
        self, message: Text, *, remedy: Text = "", errno: int | None = None, verb: str = "", **values: object
    ) -> None:
        super().__init__(message, remedy=remedy, **values)
        self.errno, self.verb = errno, verb


class OutputError(VajraError):
    """Standard output cannot be written."""


class SourceError(VajraError):
    """A camera cannot be opened or read.

    Attributes:
        login_refused: it refuses user and password, and may lock the user out who comes again with the same.
    """

    def __init__(self, message: Text, *, remedy: Text = "", login_refused: bool = False, **values: object) -> None:
        super().__init__(message, remedy=remedy, **values)
        self.login_refused = login_refused


class DatasetError(VajraError):
    """A data set cannot be used."""


class PublishError(VajraError):
    """The broker refused or cannot be reached."""


class ControlError(VajraError):
    """The daemon's control socket is absent or answered with an error.

    Attributes:
        absent: nobody listens there, so that no daemon runs.
    """

    def __init__(self, message: Text, *, remedy: Text = "", absent: bool = False, **values: object) -> None:
        super().__init__(message, remedy=remedy, **values)
        self.absent = absent
