"""Hands over to the commands; the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import os
import sys

from vajra_edge.errors import VajraError


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or the exit code of the error: 1, or 78 for settings (systemd does not restart on it).
    """
    from vajra_edge.cli.app import run
    from vajra_edge.cli.terminal import inert

    try:
        return run(sys.argv[1:] if arguments is None else arguments)
    except VajraError as error:
        print(f"vajra-edge: {inert(str(error))}", file=sys.stderr)  # noqa: T201  the one line
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output left (`| head`); the interpreter must not try to flush again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
