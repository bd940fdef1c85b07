"""``rebuild``: through the running daemon, or in place where none runs; and why one is or is not needed.

Without a daemon a plan is worked out as the daemon would, taken from the store or built in a child.
"""

from __future__ import annotations

import os
import queue
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from vajra_edge.build.request import BuildRequest
from vajra_edge.cli.terminal import inert
from vajra_edge.config.settings import Settings, load
from vajra_edge.daemon.build_process import Builder, BuildProgressed, BuildSucceeded, ChildFailed
from vajra_edge.daemon.control.client import ask
from vajra_edge.daemon.reconciler import DesiredPlan, DesiredPlans
from vajra_edge.errors import BuildError, ControlError
from vajra_edge.plans.audit_log import AuditEntry, AuditLog, Happened
from vajra_edge.plans.history import History
from vajra_edge.plans.manifest import Plan
from vajra_edge.plans.report_json import write_verify
from vajra_edge.plans.store import EngineStore
from vajra_edge.privileges import become_service_user
from vajra_edge.progress import Progress
from vajra_edge.telemetry.status import BuildView


def desired_plan_of(settings: Settings) -> tuple[DesiredPlan, EngineStore]:
    """Which plan settings and weights ask for here, and the store that may hold it.

    Raises:
        VajraError: see ``DesiredPlans.work_out``.
    """
    store = EngineStore(settings.store.state_dir, settings.store.max_bytes)
    return DesiredPlans(store, History(settings.store.state_dir)).work_out(settings), store


def ready_plan(settings: Settings, *, force: bool = False, show: Callable[[Progress], None] = lambda _: None) -> Plan:
    """The wanted plan, built in a child if the store lacks it or ``force`` asks for it.

    Args:
        settings: the operator's.
        force: build even if the plan is there.
        show: takes the child's progress.

    Raises:
        VajraError: the desired plan cannot be worked out.
        BuildError: the build failed.
    """
    desired, store = desired_plan_of(settings)
    plan = None if force else store.get(desired.fingerprint.digest)
    if plan is None:
        _build(replace(desired.request, force=force), show)
        plan = store.get(desired.fingerprint.digest)
    if plan is None:
        raise BuildError(f"plan {desired.fingerprint.short} is not in the store after its build", remedy="see the log")
    return plan


def _build(request: BuildRequest, show: Callable[[Progress], None]) -> None:
    inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
    builder = Builder(inbox.put)
    try:
        builder.start(0, request)
        while True:
            match inbox.get():
                case BuildProgressed(_, progress):
                    show(progress)
                case BuildSucceeded():
                    return
                case ChildFailed() as failed:
                    raise BuildError(failed.message)
    finally:
        builder.close()


Show = Callable[[str, float, str], None]
"""Takes the stage, the percentage of the whole build, and what is being done."""


def rebuild(config: Path, *, force: bool, dry_run: bool, wait: bool, as_json: bool) -> int:
    """Print what came of it; returns 0 unless it failed.

    Raises:
        VajraError: the build failed, or cannot be worked out.
    """
    settings = load(config)
    become_service_user(settings.store.state_dir)
    with ExitStack() as stack:
        show = _bar(stack) if wait and not dry_run and not as_json else _silent
        request = {"verb": "rebuild", "force": force, "dry_run": dry_run, "wait": wait}
        try:
            said = _through_daemon(settings.service.control_socket, request, show)
        except ControlError as error:
            if not error.absent:
                raise
            said = _in_place(settings, force=force, dry_run=dry_run, show=show)
    print(orjson.dumps(said).decode() if as_json else inert(_words(said)))  # noqa: T201
    return 0


def roll_back(config: Path, *, wait: bool, as_json: bool) -> int:
    """Go back to the plan before, and print it; where no daemon runs the next one begins with it. Returns 0.

    Raises:
        VajraError: there is none, or it cannot serve.
    """
    settings = load(config)
    become_service_user(settings.store.state_dir)
    request = {"verb": "rebuild", "rollback": True, "wait": wait}
    try:
        said = _through_daemon(settings.service.control_socket, request, _silent)
    except ControlError as error:
        if not error.absent:
            raise
        said = _roll_back_in_place(settings)
    short = str(said["fingerprint"])[:12]
    words = f"{short} serves" if said["by"] == "daemon" and wait else f"{short} is to serve"
    told = f"{words}, until weights or settings change"
    print(orjson.dumps(said).decode() if as_json else inert(told))  # noqa: T201
    return 0


def _roll_back_in_place(settings: Settings) -> dict[str, Any]:
    desired, store = desired_plan_of(settings)
    plans = DesiredPlans(store, History(settings.store.state_dir))
    plans.roll_back(desired)
    return plans.work_out(settings).preview(None).answer(by="this command")


def _through_daemon(socket: Path, request: Mapping[str, object], show: Show) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for reply in ask(socket, request):
        said = reply
        building = reply.get("building")
        if building:
            show(inert(str(building["stage"])), float(building["percent"]), inert(str(building["message"])))
    return {**{name: value for name, value in said.items() if name != "kind"}, "by": "daemon"}


def _in_place(settings: Settings, *, force: bool, dry_run: bool, show: Show) -> dict[str, Any]:
    desired, _ = desired_plan_of(settings)
    said = desired.preview(None, force=force).answer(by="this command")
    if dry_run or not said["needed"]:
        return said
    view = BuildView(desired.fingerprint.digest, quick=False)

    def step(progress: Progress) -> None:
        nonlocal view
        view = view.after(progress)
        show(view.stage, view.percent, view.message)

    log, who = AuditLog(settings.store.state_dir), f"rebuild, user {os.geteuid()}"
    try:
        plan = ready_plan(settings, force=force, show=step)
    except BuildError as error:
        log.append(AuditEntry(Happened.REFUSED, desired.fingerprint.digest, str(error), who))
        raise
    manifest = plan.manifest
    log.append(AuditEntry(Happened.BUILT, plan.fingerprint, "; ".join(desired.why()), who, manifest.build_s))
    achieved = {"precision": manifest.precision.value, "target": str(manifest.target), "build_s": manifest.build_s}
    return {**said, "built": True, **achieved, "verify": write_verify(manifest.verify)}


def _bar(stack: ExitStack) -> Show:
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    bar = stack.enter_context(Bar(*columns, console=Console(file=sys.stderr), transient=True))
    task = bar.add_task("starting", total=100)
    return lambda stage, percent, message: bar.update(task, description=message or stage, completed=percent)


def _silent(stage: str, percent: float, message: str) -> None:
    del stage, percent, message


def _words(said: Mapping[str, Any]) -> str:
    return _outcome(said) + (f"; {said['calibration']}" if said.get("calibration") else "")


def _outcome(said: Mapping[str, Any]) -> str:
    short = str(said.get("fingerprint") or "")[:12]
    why = "; ".join(said.get("why") or ()) or "nothing changed"
    if said.get("built"):
        return f"built {short} ({said.get('precision', '')} on {said.get('target', '')}): {why}"
    if said.get("started"):
        return f"building {short}: {why}"
    if said.get("needed"):
        return f"{short} would be built from weights {str(said['weights_sha256'])[:12]}: {why}"
    if said.get("rejected"):
        return str(said["rejected"])
    return f"{short} is there: no build needed ({why})"
