"""Times OmniSafe's CPO (PyPI ``omnisafe``); runs with the peer's Python.

    python3.11 -m venv PEER && PEER/bin/pip install torch==2.13.0 numpy==1.26.4 pandas==2.0.3
    PEER/bin/pip install --no-deps -r benchmarks/peers/omnisafe-requirements.txt
    PEER/bin/python benchmarks/peers/omnisafe_cpo.py --updates 3 --json out.json

Algorithm, networks, environments, loop and settings are OmniSafe's own: its defaults for CPO, with one torch
thread, without TensorBoard, and with 20,000 steps per update and networks of 64 x 64, which are defaults,
too. The script adds the clocks, and stand-ins for packages that OmniSafe imports and this training does not
use.

``cycles`` has the seconds of each update, ``[wall, processor]``: ``collect`` is the rollout, which also
computes the advantages at the end of each episode; ``actor`` is the gradients, conjugate gradient and line
search; ``critic`` is the rest of the update; ``all`` is the whole epoch up to its log lines. Medians should
leave out the first update.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from clock import Clock


@contextlib.contextmanager
def array_defaults() -> Iterator[None]:
    """Allows arrays as defaults of dataclasses, which safety-gymnasium 1.0.0 has and Python 3.11 refuses."""
    original = dataclasses.dataclass

    def dataclass(cls: Any = None, /, **options: Any) -> Any:
        if cls is None:
            return lambda decorated: dataclass(decorated, **options)
        for name in inspect.get_annotations(cls):
            default = cls.__dict__.get(name)
            if isinstance(default, np.ndarray):
                setattr(cls, name, dataclasses.field(default_factory=default.copy))
        return original(cls, **options)

    dataclasses.dataclass = dataclass  # type: ignore[assignment]
    try:
        yield
    finally:
        dataclasses.dataclass = original


# OmniSafe needs these for loggers, offline data sets and videos, none of which are used here.
for unused in ("wandb", "gdown", "gymnasium.utils.save_video"):
    sys.modules[unused] = ModuleType(unused)
sys.modules["gymnasium.utils.save_video"].save_video = None  # type: ignore[attr-defined]

with array_defaults():
    import safety_gymnasium  # noqa: F401
import omnisafe  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", default="SafetyPointGoal1-v0", help="a task of safety-gymnasium")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--steps-per-update", type=int, default=20_000)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = train(options, folder)
    options.json.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")


def train(options: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Makes all updates; what OmniSafe logs and saves goes into the folder."""
    sizes = [64, 64]
    settings = {
        "seed": options.seed,
        "train_cfgs": {
            "total_steps": options.updates * options.steps_per_update,
            "torch_threads": 1,
            "device": "cpu",
        },
        "algo_cfgs": {"steps_per_epoch": options.steps_per_update},
        "logger_cfgs": {"use_wandb": False, "use_tensorboard": False, "log_dir": folder},
        "model_cfgs": {"actor": {"hidden_sizes": sizes}, "critic": {"hidden_sizes": sizes}},
    }
    training = omnisafe.Agent("CPO", options.task, custom_cfgs=settings)
    agent = training.agent
    clock = Clock()
    for owner, method in (
        (agent._env, "rollout"),
        (agent, "_update"),
        (agent, "_update_actor"),
        (agent.logger, "dump_tabular"),
    ):
        clock.watch(owner, method)
    agent.learn()
    packages = ("omnisafe", "torch", "numpy", "gymnasium", "safety-gymnasium", "mujoco")
    config = training.cfgs.todict()
    del config["logger_cfgs"]["log_dir"], config["exp_increment_cfgs"]
    return {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "cores": os.cpu_count(),
        "config": config,
        "cycles": cycles(clock, options.steps_per_update),
    }


def cycles(clock: Clock, env_steps: int) -> list[dict[str, Any]]:
    update, actor = clock.spans("_update"), clock.spans("_update_actor")
    starts, ends = clock.starts("rollout"), clock.ends("dump_tabular")
    return [
        {
            "env_steps": env_steps,
            "collect": clock.spans("rollout")[i],
            "actor": actor[i],
            "critic": update[i] - actor[i],
            "all": ends[i] - starts[i],
        }
        for i in range(len(update))
    ]


if __name__ == "__main__":
    main()
