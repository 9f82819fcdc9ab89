"""What has to be imported to be examined, each in a process of its own: ``python -m fsrl_ext.doctor.probes``.

A simulator that cannot draw may abort its process, and a broken package may do so at its import. A probe
therefore says at the beginning of each stage what it begins, and the process that started it
(:mod:`fsrl_ext.doctor.examine`) knows the stage in which it ended.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

MARK = "fsrl-ext doctor: "
"""Begins the lines of a probe, among those that simulators print."""

SIMULATORS = {
    "bullet-safety-gym": ("bullet_safety_gym", "SafetyBallRun-v0"),
    "safety-gymnasium": ("safety_gymnasium", "SafetyPointGoal1-v0"),
}
"""The module and a small task of each suite."""

TASK = "KnownOptimum-v0"
"""A task that needs no simulator."""


def core() -> None:
    """Imports everything that training needs, takes a step of a task, and looks for GPUs."""
    _begin("import")
    from fsrl_ext.env import make

    importlib.import_module("fsrl_ext.experiment")
    _end("training can be imported")
    _begin("step")
    _step(make(TASK))
    _end(f"a step of {TASK} was taken")
    _begin("gpu")
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if names:
        torch.zeros(1, device="cuda").sum().item()
    built = torch.version.cuda
    without = f"none (PyTorch is built {f'for CUDA {built}' if built else 'without CUDA'})"
    _end(", ".join(names) if names else without)


def simulator(suite: str) -> None:
    """Imports a simulator, takes a step of a small task, and draws a frame of it."""
    module, task = SIMULATORS[suite]
    _begin("import")
    from fsrl_ext.env import make

    env = make(task)  # names what is not installed, and keeps the simulator's greetings off the terminal
    importlib.import_module(module)
    _end(f"{module} can be imported")
    _begin("step")
    _step(env)
    _end(f"a step of {task} was taken")
    _begin("draw")
    env = make(task, render_mode="rgb_array")
    env.reset(seed=0)
    frame: Any = env.render()
    env.close()
    if frame.ndim != 3 or frame.min() == frame.max():
        raise RuntimeError(f"the frame has the shape {list(frame.shape)} and shows nothing")
    height, width = frame.shape[:2]
    _end(f"a frame of {width} x {height} was drawn by {_backend(suite)}")


def _step(env: Any) -> None:
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.close()


def _backend(suite: str) -> str:
    if suite == "bullet-safety-gym":
        return "PyBullet on the processor"
    return f"MuJoCo with {os.environ.get('MUJOCO_GL', 'glfw').upper()}"


def _begin(stage: str) -> None:
    _say({"begins": stage})


def _end(message: str) -> None:
    _say({"ends": message})


def _say(what: dict[str, Any]) -> None:
    print(MARK + json.dumps(what), flush=True)


def main(arguments: list[str]) -> int:
    """Runs a probe; an exception of any kind is part of what it says."""
    try:
        core() if arguments == ["core"] else simulator(arguments[1])
    except BaseException as error:  # pytest.Exit and SystemExit of a package's import, too
        text = " ".join(str(error).split())
        kind = type(error).__name__
        # The class cannot be imported where importing it is what fails.
        not_installed = kind == "SuiteNotInstalledError"
        _say({"error": f"{kind}: {text}" if text else kind, "missing": not_installed})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
