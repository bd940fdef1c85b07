"""Hands over to the commands; the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import sys
from contextlib import suppress

from vajra_edge.errors import VajraError


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or the exit code of the error: 1, or 78 for settings (systemd does not restart on it).
    """
    from vajra_edge.cli import output
    from vajra_edge.cli.app import run
    from vajra_edge.cli.terminal import inert

    try:
        with output.prepared():
            return run(sys.argv[1:] if arguments is None else arguments)
    except VajraError as error:
        with suppress(OSError):  # the exit code counts also where nobody can be told why
            print(f"vajra-edge: {inert(str(error))}", file=sys.stderr)  # noqa: T201  the one line
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output left (`| head`)
        return 0


if __name__ == "__main__":
    sys.exit(main())
