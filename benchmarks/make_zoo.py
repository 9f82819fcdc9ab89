"""Puts the best policy of a finished run into the zoo of the package, ``fsrl_ext/zoo``.

    python benchmarks/make_zoo.py RUN cvpo-ball-circle [--replace]

The policy is written without the moments of its optimisers, which are half of a checkpoint: it acts, and a
new run can start from it (``--init-from``) with fresh moments. The file that is written plays the final
evaluation with the code of today, and the record beside it holds the numbers of this evaluation. A run that
has not finished or knows no limit is refused. A policy is refused if it was or is infeasible in the final
evaluation, or if the zoo with it would be larger than 3 MB.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fsrl_ext.experiment import evaluate
from fsrl_ext.experiment.saved.load import load_experiment
from fsrl_ext.experiment.training.checkpoint import read_checkpoint, write_checked
from fsrl_ext.report import read_result
from fsrl_ext.report.files import write_json
from fsrl_ext.report.folder import RunFolder
from fsrl_ext.zoo import policies
from fsrl_ext.zoo.policies import ZooPolicy

MOST_BYTES = 3_000_000
"""Size of the whole zoo, at most."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="a finished run folder")
    parser.add_argument("name", help="of the policy: words of small letters and digits, joined by -")
    parser.add_argument("--replace", action="store_true", help="replace a policy of this name")
    options = parser.parse_args()
    try:
        print(make(options.run, options.name, replace=options.replace))
    except ValueError as error:
        print(f"make_zoo.py: {error}", file=sys.stderr)
        return 2
    return 0


def make(run: Path, name: str, *, replace: bool = False) -> ZooPolicy:
    """Writes a policy and its record; nothing stays of one that is refused.

    :raises ValueError: for a name, a run or a policy that cannot be used.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(f"name must be words of small letters and digits, joined by -, got {name!r}")
    file = policies.FOLDER / f"{name}.pt"
    if file.exists() and not replace:
        raise ValueError(f"the zoo has a policy {name} already; --replace replaces it")
    result = read_result(run)
    if result["status"] != "finished":
        raise ValueError(f"{run} has not finished")
    if not np.isfinite(result["config"]["cost_limit"]).any():
        raise ValueError(f"{run} knows no limit")
    if not result["best"]["feasible"]:
        raise ValueError(f"the best policy of {run} is infeasible in its final evaluation")
    beside = policies.FOLDER / f".{name}.pt"  # judged before it is part of the zoo
    try:
        env_step = _write(RunFolder(run).best, beside)
        others = sum(x.stat().st_size for x in policies.FOLDER.glob("*.pt") if x not in (file, beside))
        if others + beside.stat().st_size > MOST_BYTES:
            raise ValueError(f"the zoo would be larger than {MOST_BYTES / 1e6:g} MB")
        record = _judge(beside, name, result, env_step)
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
    write_json(file.with_suffix(".json"), {k: v for k, v in asdict(record).items() if k != "name"})
    return record


def _write(checkpoint: Path, file: Path) -> int:
    """Writes the policy in the format and with the settings of today; returns its environment step."""
    policy, config, spec = load_experiment(checkpoint, device="cpu")
    counters = read_checkpoint(checkpoint)["counters"]
    data: dict[str, Any] = {"policy": policy.state_dict(), "optimisers": {}, "config": config.as_dict()}
    write_checked(file, {**data, "spec": spec.as_dict(), "counters": counters}, kind="checkpoint")
    return int(counters["env_step"])


def _judge(file: Path, name: str, result: dict[str, Any], env_step: int) -> ZooPolicy:
    """Plays the final evaluation.

    :raises ValueError: if the policy is infeasible.
    """
    config = result["config"]
    evaluation = evaluate(file, episodes=int(config["final_episodes"]))
    if not evaluation.feasible:
        raise ValueError(f"the policy is infeasible with the code of today: cost {evaluation.cost_mean}")
    summary = evaluation.summary()
    return ZooPolicy(
        name=name,
        policy=config["policy"],
        task=config["task"],
        cost_limit=tuple(config["cost_limit"]),
        steps=int(config["steps"]),
        env_step=env_step,
        seed=int(config["seed"]),
        episodes=int(summary["episodes"]),
        return_mean=float(summary["return_mean"]),
        return_stderr=float(summary["return_stderr"]),
        cost_mean=tuple(map(float, summary["cost_mean"])),
        cost_stderr=tuple(map(float, summary["cost_stderr"])),
        command=_command(result["command"]),
        trained_with=result["versions"]["fsrl_ext"],
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
    )


_ABOUT_THE_MACHINE = {"--out": 1, "--run-name": 1, "--cores": 1, "--quiet": 0}
"""Options that change no number of a run, and how many words follow them."""


def _command(command: str) -> str:
    """The command line that trained a policy, without folders and cores; a line of Python stays as it is."""
    if not command.startswith("fsrl-ext "):
        return command
    words, kept = shlex.split(command), []
    while words:
        word = words.pop(0)
        if word in _ABOUT_THE_MACHINE:
            del words[: _ABOUT_THE_MACHINE[word]]
        elif word.split("=")[0] not in _ABOUT_THE_MACHINE:
            kept.append(word)
    return shlex.join(kept)


if __name__ == "__main__":
    sys.exit(main())
