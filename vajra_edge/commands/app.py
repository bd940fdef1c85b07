"""The command line: one verb a function, its work in the module of the same name, loaded when it is typed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vajra_edge import __version__
from vajra_edge.settings import DEFAULT_PATH

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turns this machine into a detection appliance: VajraV1 weights in, detections over MQTT out.",
)

Config = Annotated[Path, typer.Option("--config", "-c", help="settings file", envvar="VAJRA_EDGE_CONFIG")]
Json = Annotated[bool, typer.Option("--json", help="machine-readable output on stdout, and nothing else there")]
MaxFrames = Annotated[int | None, typer.Option("--max-frames", min=1, help="end after this many detection messages")]


def run(arguments: list[str]) -> int:
    """Run one command line.

    Returns:
        The exit code; 2 for a command line that cannot be understood.

    Raises:
        VajraError: the command failed; the caller prints it.
    """
    try:
        typer.main.get_command(app).main(arguments, prog_name="vajra-edge")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"vajra-edge {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="say it and end")
    ] = False,
) -> None:
    del version


@app.command("run")
def run_daemon(config: Config = DEFAULT_PATH, max_frames: MaxFrames = None) -> None:
    """Run the daemon: build the engine if needed, stream the cameras, publish, rebuild on changes."""
    from vajra_edge.commands import run as verb

    raise typer.Exit(verb.run(config, max_frames))


@app.command()
def demo(
    max_frames: MaxFrames = None,
    source: Annotated[str | None, typer.Option("--source", help="a file, folder, camera or stream of your own")] = None,
    weights: Annotated[Path | None, typer.Option("--weights", help="a network of your own, .onnx or .pt")] = None,
    broker: Annotated[
        str | None, typer.Option("--broker", help="host[:port] of a broker of your own, without a password")
    ] = None,
    json_: Json = False,
) -> None:
    """Show the daemon at work: its own broker, a short clip, and what an MQTT subscriber receives."""
    from vajra_edge.commands import demo as verb

    raise typer.Exit(verb.demo(max_frames=max_frames, source=source, weights=weights, broker=broker, as_json=json_))


@app.command()
def rebuild(
    config: Config = DEFAULT_PATH,
    force: Annotated[bool, typer.Option("--force", help="build even if the plan is there")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be built and why; build nothing")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="show progress until it serves")] = True,
    json_: Json = False,
) -> None:
    """Build the engine that settings and weights ask for: through the running daemon, or in place without one."""
    from vajra_edge.commands import rebuild as verb

    raise typer.Exit(verb.rebuild(config, force=force, dry_run=dry_run, wait=wait, as_json=json_))


@app.command()
def status(config: Config = DEFAULT_PATH, json_: Json = False) -> None:
    """What the running daemon does: engine, cameras, broker, and why anything is not well."""
    from vajra_edge.commands import status as verb

    raise typer.Exit(verb.status(config, as_json=json_))


@app.command()
def watch(
    config: Config = DEFAULT_PATH,
    json_: Json = False,
    max_messages: Annotated[int | None, typer.Option("--max-messages", min=1, help="end after this many")] = None,
) -> None:
    """Subscribe to the broker and show what arrives."""
    from vajra_edge.commands import watch as verb
    from vajra_edge.settings import load

    raise typer.Exit(verb.watch(load(config), as_json=json_, max_messages=max_messages))


@app.command()
def doctor(
    config: Config = DEFAULT_PATH,
    json_: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="only the exit code")] = False,
) -> None:
    """Check everything the daemon needs, and say what to do about what is missing. Exit code 1 if anything fails."""
    from vajra_edge.commands import doctor as verb

    raise typer.Exit(verb.doctor(config, as_json=json_, quiet=quiet))


@app.command()
def bench(
    seconds: Annotated[float, typer.Option("--seconds", min=2.0, help="how long to measure")] = 20.0,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="settings; without: the demo's")] = None,
    source: Annotated[str | None, typer.Option("--source", help="clip to measure with")] = None,
    weights: Annotated[Path | None, typer.Option("--weights", help="network to measure")] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU inference threads")] = None,
    json_: Json = False,
) -> None:
    """Measure the whole frame path against the bare engine, in one run."""
    from vajra_edge.commands import bench as verb

    raise typer.Exit(verb.bench(seconds, config=config, source=source, weights=weights, threads=threads, as_json=json_))
