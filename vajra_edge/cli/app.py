"""The command line: one verb a function, its work in the module of the same name, loaded when it is typed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vajra_edge.cli import arguments as cli_arguments
from vajra_edge.cli.arguments import WordsCommand
from vajra_edge.config.settings import DEFAULT_PATH
from vajra_edge.errors import UsageError
from vajra_edge.version import VERSION
from vajra_edge.wording import Argument

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
        typer.echo(f"vajra-edge {VERSION}")
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
    from vajra_edge.daemon import aborts

    aborts.block()  # before any library starts threads
    from vajra_edge.cli import run as verb

    verb.leave(verb.run(config, max_frames))


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
    from vajra_edge.cli import demo as verb

    raise typer.Exit(verb.demo(max_frames=max_frames, source=source, weights=weights, broker=broker, as_json=json_))


@app.command()
def rebuild(
    config: Config = DEFAULT_PATH,
    force: Annotated[bool, typer.Option("--force", help="build even if the plan is there")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be built and why; build nothing")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="show progress until it serves")] = True,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="go back to the plan before, until weights or settings change")
    ] = False,
    json_: Json = False,
) -> None:
    """Build the engine that settings and weights ask for: through the running daemon, or in place without one."""
    from vajra_edge.cli import rebuild as verb

    if rollback:
        if force or dry_run:
            raise UsageError("a rollback builds nothing", remedy="leave out --force and --dry-run")
        raise typer.Exit(verb.roll_back(config, wait=wait, as_json=json_))
    raise typer.Exit(verb.rebuild(config, force=force, dry_run=dry_run, wait=wait, as_json=json_))


@app.command()
def history(config: Config = DEFAULT_PATH, json_: Json = False) -> None:
    """What happened to the engine on this device: builds, swaps, rollbacks, crashes, why, and who asked."""
    from vajra_edge.cli import history as verb

    raise typer.Exit(verb.history(config, as_json=json_))


@app.command()
def status(config: Config = DEFAULT_PATH, json_: Json = False) -> None:
    """What the running daemon does: engine, cameras, broker, and why anything is not well."""
    from vajra_edge.cli import status as verb

    raise typer.Exit(verb.status(config, as_json=json_))


@app.command("set")
def set_(
    setting: Annotated[str, typer.Argument(metavar="SETTING", help="like cameras.gate.confidence or detect.classes")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="0.4, off, person,car; JSON for zones and lines")],
    config: Config = DEFAULT_PATH,
    json_: Json = False,
) -> None:
    """Change a setting of the running daemon; it stands over the settings file, also after a restart, until unset."""
    from vajra_edge.cli import overrides as verb

    raise typer.Exit(verb.set_(config, setting, value, as_json=json_))


@app.command()
def unset(
    setting: Annotated[str, typer.Argument(metavar="SETTING", help="what was set; cameras.gate: all of that camera")],
    config: Config = DEFAULT_PATH,
    json_: Json = False,
) -> None:
    """Undo what set changed: the settings file and the environment count again."""
    from vajra_edge.cli import overrides as verb

    raise typer.Exit(verb.unset(config, setting, as_json=json_))


@app.command()
def calibration(
    config: Config = DEFAULT_PATH,
    delete: Annotated[bool, typer.Option("--delete", help="delete the images; INT8 then collects anew")] = False,
    json_: Json = False,
) -> None:
    """What the cameras gave to calibrate INT8 with: how much, where, since when, and what is still awaited."""
    from vajra_edge.cli import calibration as verb

    raise typer.Exit(verb.calibration(config, delete=delete, as_json=json_))


@app.command()
def watch(
    config: Config = DEFAULT_PATH,
    json_: Json = False,
    max_messages: Annotated[int | None, typer.Option("--max-messages", min=1, help="end after this many")] = None,
) -> None:
    """Subscribe to the broker and show what arrives."""
    from vajra_edge.cli import watch as verb
    from vajra_edge.config.settings import load

    raise typer.Exit(verb.watch(load(config), as_json=json_, max_messages=max_messages))


@app.command()
def doctor(
    config: Config = DEFAULT_PATH,
    json_: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="only the exit code")] = False,
    inside: Annotated[bool, typer.Option("--inside", hidden=True, help="this runs in the sandbox already")] = False,
) -> None:
    """Check everything the daemon needs, and say what to do about what is missing. Exit code 1 if anything fails."""
    from vajra_edge.cli import doctor as verb

    raise typer.Exit(verb.doctor(config, as_json=json_, quiet=quiet, inside=inside))


@app.command()
def bench(
    seconds: Annotated[float, typer.Option("--seconds", min=2.0, help="how long to measure each plan")] = 30.0,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="settings; without: the demo's")] = None,
    source: Annotated[str | None, typer.Option("--source", help="clip to measure with")] = None,
    weights: Annotated[Path | None, typer.Option("--weights", help="network to measure")] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU inference threads")] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, max=64, help="most frames in one call")] = None,
    cameras: Annotated[
        int | None, typer.Option("--cameras", help="so many cameras, fed from memory without a decoder")
    ] = None,
    fps: Annotated[float | None, typer.Option("--fps", help="frames a second of each of them; unset: 30")] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--compare",
            metavar="A B",
            help="two plans (settings, weights, .engine, fingerprint) in turns, or two files that --json wrote",
        ),
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="compare figures of different machines or setups, which are named")
    ] = False,
    json_: Json = False,
) -> None:
    """Measure the whole frame path against the bare engine, in one run; no broker is needed."""
    from vajra_edge.cli import bench as verb

    asked = verb.Asked(seconds, config, source, weights, threads, batch, cameras, fps)
    if compare is None:
        if anyway:
            raise UsageError("--anyway is of a comparison", remedy="add --compare A B, or leave it out")
        raise typer.Exit(verb.bench(asked, as_json=json_))
    raise typer.Exit(verb.compared(*compare, asked, anyway=anyway, as_json=json_))


Model = Annotated[str, typer.Option("--model", "--weights", help="a .pt, .onnx or .engine file")]
Half = Annotated[bool, typer.Option("--half/--no-half", help="16-bit floats: faster on GPUs; boxes stay 32-bit")]
RunSize = Annotated[
    str | None, typer.Option("--img_size", help="input side, or height,width, in pixels; unset: what it was made for")
]
RunBatch = Annotated[int | None, typer.Option("--batch", min=1, help="images in one call; unset: as many as it takes")]
Device = Annotated[str | None, typer.Option("--device", help="0 for a GPU, dla:0, dla:1 or cpu; unset: the best")]
ClassNames = Annotated[
    str | None, typer.Option("--names", help="of the classes, where the file has none: person,car or a data.yaml")
]
Iou = Annotated[
    float | None, typer.Option("--iou", help="boxes of one class that overlap more are one; unset: 0.7, or as built in")
]


@app.command(
    cls=WordsCommand,
    epilog="Example: vajra-edge export model=vajra-v1-nano-det.pt format=engine half=True device=0",
)
def export(
    model: Model,
    format_: Annotated[str, typer.Option("--format", help="engine: for TensorRT; onnx: for anything")] = "engine",
    img_size: Annotated[
        str | None,
        typer.Option(
            "--img_size", help="input side, or height,width, in pixels; unset: that of an .onnx file, else 640"
        ),
    ] = None,
    half: Half = False,
    int8: Annotated[
        bool, typer.Option("--int8/--no-int8", help="8-bit integers, calibrated on the val images of data")
    ] = False,
    dynamic: Annotated[
        bool, typer.Option("--dynamic/--no-dynamic", help="take other sizes, and smaller batches, too")
    ] = False,
    simplify: Annotated[bool, typer.Option("--simplify/--no-simplify", help="run onnxslim over the graph")] = True,
    workspace: Annotated[
        float | None, typer.Option("--workspace", help="most scratch memory of the builder in GiB; unset: what is free")
    ] = None,
    nms: Annotated[bool, typer.Option("--nms/--no-nms", help="put non-maximum suppression into the network")] = False,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="most images in one call; unset: that of an .onnx file, else 1")
    ] = None,
    data: Annotated[
        str,
        typer.Option("--data", help="data.yaml, image folder or video that calibrates int8; 500 images advised"),
    ] = "coco8.yaml",
    fraction: Annotated[float, typer.Option("--fraction", help="share of data that is used, above 0 up to 1")] = 1.0,
    device: Device = None,
    quantization: Annotated[
        str, typer.Option("--quantization", help="route to int8: qdq, calibrator (TensorRT up to 10.x) or auto")
    ] = "auto",
    max_img_size: Annotated[
        str | None, typer.Option("--max_img_size", help="largest size of a dynamic export; unset: twice img_size")
    ] = None,
    names: ClassNames = None,
    json_: Json = False,
) -> None:
    """Build a TensorRT engine, or write ONNX, beside the weights; options may be typed as key=value."""
    from vajra_edge.cli import tasks as verb
    from vajra_edge.tasks.arguments import BATCH, IMG_SIZE, ExportArguments

    size = IMG_SIZE if img_size is None else cli_arguments.sides(img_size)
    numbers = (workspace, nms, BATCH if batch is None else batch, data, fraction, device)
    most = None if max_img_size is None else cli_arguments.sides(max_img_size, Argument.MAX_IMG_SIZE)
    arguments = ExportArguments(format_, size, half, int8, dynamic, simplify, *numbers, quantization, most, names)
    raise typer.Exit(verb.export(Path(model), arguments, as_json=json_))


@app.command(
    cls=WordsCommand, epilog="Example: vajra-edge val model=vajra-v1-nano-det.engine data=coco.yaml img_size=640"
)
def val(
    model: Model,
    data: Annotated[str, typer.Option("--data", help="data.yaml with val images and labels, or a COCO json")],
    device: Device = None,
    img_size: RunSize = None,
    half: Half = False,
    batch: RunBatch = None,
    conf: Annotated[float, typer.Option("--conf", help="lowest confidence that counts")] = 0.001,
    iou: Iou = None,
    by_number: Annotated[
        bool, typer.Option("--by_number/--no-by_number", help="match classes by number, whatever they are called")
    ] = False,
    names: ClassNames = None,
    json_: Json = False,
) -> None:
    """Score a network on a dataset: COCO mAP by class, and milliseconds an image; options may be typed as key=value."""
    from vajra_edge.cli import tasks as verb

    size = None if img_size is None else cli_arguments.sides(img_size)
    asked = {"device": device, "img_size": size, "half": half, "batch": batch, "conf": conf, "iou": iou, "names": names}
    asked["by_number"] = by_number
    raise typer.Exit(verb.val(model, data, asked, as_json=json_))


@app.command(
    cls=WordsCommand, epilog="Example: vajra-edge predict model=vajra-v1-nano-det.engine source=path/to/img.jpg"
)
def predict(
    model: Model,
    source: Annotated[
        str, typer.Option("--source", help="image, folder, video, list, pattern, address of one, or camera")
    ],
    conf: Annotated[float, typer.Option("--conf", help="lowest confidence that is told")] = 0.25,
    iou: Iou = None,
    classes: Annotated[str | None, typer.Option("--classes", help="ids or names, like 0,2 or person,car")] = None,
    max_det: Annotated[int | None, typer.Option("--max_det", min=1, help="most boxes an image; unset: 300")] = None,
    img_size: RunSize = None,
    half: Half = False,
    batch: RunBatch = None,
    device: Device = None,
    save: Annotated[
        bool | None, typer.Option("--save/--no-save", help="write annotated copies to runs/; unset: unless --json")
    ] = None,
    names: ClassNames = None,
    json_: Json = False,
) -> None:
    """Find objects in images, videos and cameras; options may be typed as key=value."""
    from vajra_edge.cli import tasks as verb
    from vajra_edge.tasks.thresholds import Typed

    asked = {
        "conf": conf,
        "iou": iou,
        "classes": None if classes is None else [Typed(text) for text in cli_arguments.items(classes)],
        "max_det": max_det,
        "img_size": None if img_size is None else cli_arguments.sides(img_size),
        "half": half,
        "batch": batch,
        "device": device,
        "save": not json_ if save is None else save,
        "names": names,
    }
    raise typer.Exit(verb.predict(model, source, asked, as_json=json_))


bundles = typer.Typer(no_args_is_help=True, help="Signed weights: made, checked, adopted.")
app.add_typer(bundles, name="bundle")

BundleFile = Annotated[Path, typer.Argument(metavar="BUNDLE", help="the file that bundle make wrote")]


@bundles.command("make")
def bundle_make(
    weights: Annotated[Path, typer.Argument(help="the .pt or .onnx file")],
    output: Annotated[Path, typer.Argument(help="where the bundle goes")],
    key: Annotated[Path, typer.Option("--key", help="secret key of minisign (minisign -G)")],
    serial: Annotated[int, typer.Option("--serial", min=1, help="above that of every bundle before")],
    names: Annotated[str | None, typer.Option("--names", help="of the classes: person,car; unset: the file's")] = None,
    engine: Annotated[
        list[str] | None, typer.Option("--engine", help="a wish for [engine], like precision=int8; may be repeated")
    ] = None,
    json_: Json = False,
) -> None:
    """Sign weights, their class names and wishes for the engine, on your own machine."""
    from vajra_edge.cli import bundle as verb

    raise typer.Exit(verb.make(weights, output, key, serial, names, engine or (), as_json=json_))


@bundles.command("verify")
def bundle_verify(
    bundle: BundleFile,
    config: Config = DEFAULT_PATH,
    keys: Annotated[Path | None, typer.Option("--keys", help="folder of trusted keys; unset: [weights] keys")] = None,
    json_: Json = False,
) -> None:
    """Check a bundle against the trusted keys, and say what is in it. Exit code 10 where it is refused."""
    from vajra_edge.cli import bundle as verb

    raise typer.Exit(verb.verify(config, bundle, keys, as_json=json_))


@bundles.command("adopt")
def bundle_adopt(
    bundle: BundleFile,
    config: Config = DEFAULT_PATH,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="until it served through its probation")] = True,
) -> None:
    """Build, check, swap in and try out a bundle: exit code 0 it serves, 10 refused, 11 rolled back; JSON says why."""
    from vajra_edge.cli import bundle as verb

    raise typer.Exit(verb.adopt(config, bundle, wait=wait))
