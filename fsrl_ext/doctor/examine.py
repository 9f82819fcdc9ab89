"""The examination of an installation: packages, core, simulators, drawing, GPU and processor cores."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fsrl_ext
from fsrl_ext.doctor.findings import Finding, Section
from fsrl_ext.doctor.packages import examine_packages, install_command
from fsrl_ext.doctor.probes import MARK, SIMULATORS

SECONDS = 180.0
"""A probe that takes longer is ended."""

OLDEST, TOO_NEW = (3, 11), (3, 13)
"""The Python versions for which the packages have wheels: from the first one, below the second one."""

EXTRAS = {"bullet-safety-gym": "bullet", "safety-gymnasium": "safety"}
"""The extra of each suite."""

# PyBullet brings its own way to draw, on the processor.
_DRAW = {"safety-gymnasium": "apt-get install libegl1  # or libosmesa6, or a display"}
_CUDA = "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu126"


def examine(seconds: float = SECONDS) -> list[Finding]:
    """Examines this Python's installation.

    :param seconds: after which a probe is ended; the probes run at the same time.
    """
    packages = examine_packages()
    probes = {name: _start(("simulator", name)) for name in SIMULATORS}
    core = _read(_start(("core",)), seconds)
    findings = [_python(), Finding(section="core", name="fsrl_ext", status="ok", message=_own_version())]
    findings += [x for x in packages if x.section == "core"]
    findings.append(_of_stage("core", "training", core, ("import", "step")))
    drawing = []
    for name, process in probes.items():
        found, mend = _read(process, seconds), install_command(EXTRAS[name])
        findings.append(_of_stage("simulators", name, found, ("import", "step"), mend))
        if "step" in found.ended:
            drawing.append(_of_stage("drawing", name, found, ("draw",), _DRAW.get(name, "")))
    findings += [
        *drawing,
        _gpu(core),
        Finding(section="machine", name="cores", status="ok", message=_cores()),
    ]
    return findings + [x for x in packages if x.section == "extras"]


@dataclass
class Probed:
    """What a probe said.

    :param begun: the stages that it began, in order.
    :param ended: what it said at the end of a stage, by stage.
    :param error: what ended it early; empty if nothing did.
    :param missing: whether what it examines is not installed.
    """

    begun: list[str] = field(default_factory=list)
    ended: dict[str, str] = field(default_factory=dict)
    error: str = ""
    missing: bool = False


def _start(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Starts a probe, which finds this package where this process has found it."""
    root = os.path.dirname(os.path.dirname(fsrl_ext.__file__))
    path = os.pathsep.join(x for x in (os.environ.get("PYTHONPATH"), root) if x)
    return subprocess.Popen(
        [sys.executable, "-m", "fsrl_ext.doctor.probes", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONPATH": path},
    )


def _read(process: subprocess.Popen[str], seconds: float) -> Probed:
    """Waits for a probe, and returns what it said."""
    late = False
    try:
        out, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        late = True
        process.kill()
        out, errors = process.communicate()
    found = Probed()
    for line in out.splitlines():
        if line.startswith(MARK):
            _note(found, json.loads(line.removeprefix(MARK)))
    if late:
        found.error = f"it did not end within {seconds:g} seconds"
    elif process.returncode < 0:
        found.error = f"the process was ended by {signal.Signals(-process.returncode).name}"
    elif process.returncode and not found.error:
        last = errors.strip().splitlines()[-1:] or ["nothing was said"]
        found.error = f"the process ended with the code {process.returncode}: {last[0]}"
    return found


def _note(found: Probed, said: Mapping[str, Any]) -> None:
    if "begins" in said:
        found.begun.append(said["begins"])
    elif "ends" in said:
        found.ended[found.begun[-1]] = said["ends"]
    else:
        found.error, found.missing = said["error"], said["missing"]


_VERBS = {"import": "cannot be imported", "step": "cannot take a step", "draw": "cannot draw"}


def _of_stage(section: Section, name: str, found: Probed, stages: Sequence[str], mend: str = "") -> Finding:
    """Returns the finding about some stages of a probe.

    :param mend: the command that mends a failure, where there is one.
    """
    failed = [stage for stage in stages if stage not in found.ended]
    if not failed:
        return Finding(section=section, name=name, status="ok", message=found.ended[stages[-1]])
    if found.missing:
        return Finding(section=section, name=name, status="missing", message="is not installed", mend=mend)
    message = f"{_VERBS[failed[0]]}: {found.error}"
    return Finding(section=section, name=name, status="fails", message=message, mend=mend)


def _python() -> Finding:
    version, here = sys.version_info[:2], f"{platform.python_version()} at {sys.executable}"
    if OLDEST <= version < TOO_NEW:
        return Finding(section="core", name="Python", status="ok", message=here)
    oldest, too_new = (".".join(map(str, x)) for x in (OLDEST, TOO_NEW))
    return Finding(
        section="core",
        name="Python",
        status="fails",
        message=f"{here}, and a version from {oldest} to below {too_new} is needed",
        mend=f"uv venv --python {oldest} .venv  # or another way to get Python {oldest}",
    )


def _own_version() -> str:
    return f"{fsrl_ext.__version__} at {os.path.dirname(fsrl_ext.__file__)}"


def _cores() -> str:
    """Says how many cores this process may use, which are fewer than the machine's in many containers."""
    all_cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else all_cores
    return f"{usable} of {all_cores} may be used"


def _gpu(found: Probed) -> Finding:
    """Returns the finding about GPUs, which nothing needs."""
    message = found.ended.get("gpu")
    if message is None:
        return Finding(section="machine", name="GPU", status="fails", message=found.error)
    if message.startswith("none") and shutil.which("nvidia-smi"):
        return Finding(
            section="machine",
            name="GPU",
            status="fails",
            message=f"{message}, but the machine has the program nvidia-smi",
            mend=_CUDA,
        )
    return Finding(section="machine", name="GPU", status="ok", message=message)
