"""Saved policies on their way back into memory, and what playing them needs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tianshou.policy import BasePolicy

from fsrl_ext.errors import check_argument, checked
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.experiment.training.build import check_device, fresh_policy
from fsrl_ext.experiment.training.checkpoint import in_this_version, read_checkpoint, restore
from fsrl_ext.report.folder import checkpoint_file
from fsrl_ext.trainer import seed_range

MAX_EPISODES = 1_000_000
"""Episodes of an evaluation, at most; the seeds of final evaluations end there."""


@checked()
def load_policy(path: str | os.PathLike[str], *, device: str | None = None) -> BasePolicy:
    """A policy that acts, without its environment: ``policy.compute_action(obs)``.

    :param path: a checkpoint file, or a run folder (its best policy).
    :param device: where to put it; the device it was trained on if not given.
    :raises CheckpointError: if there is no usable checkpoint.
    """
    policy, _, _ = load_experiment(path, device=device)
    return policy


def load_experiment(
    path: str | os.PathLike[str], *, device: str | None = None
) -> tuple[BasePolicy, ExperimentConfig, TaskSpec]:
    """As :func:`load_policy`, with the experiment's config and the task's shapes."""
    file = checkpoint_file(path)
    data = read_checkpoint(file)
    settings = data["config"] | ({} if device is None else {"device": device})
    config = in_this_version(ExperimentConfig.from_dict, settings, data, file)
    spec = in_this_version(TaskSpec.from_dict, data["spec"], data, file)
    check_device(config.device)
    policy = fresh_policy(config, spec)
    restore(policy, data)
    return policy.eval(), config, spec


def load_saved(file: Path, device: str | None) -> tuple[BasePolicy, ExperimentConfig, TaskSpec]:
    """As :func:`load_experiment`, without drawing from torch's random numbers.

    :raises ValueError: if the device is not there.
    """
    try:
        with torch.random.fork_rng(devices=[]):  # fresh networks are drawn before they are overwritten
            return load_experiment(file, device=device)
    except (RuntimeError, AssertionError) as error:  # torch's answer for a device that is not there
        reason = str(error).strip().splitlines()[0]
        name = repr(device) if device else "of the run"
        raise ValueError(f"device {name} cannot be used: {reason}") from error


def episode_seeds(episodes: int, seed: int | None = None) -> Sequence[int]:
    """``seed, seed + 1, ...``, or the seeds of the final evaluation.

    :raises ValueError: for ``episodes`` below one and negative seeds.
    """
    check_argument("episodes", episodes, int, "at_least_one")
    if episodes > MAX_EPISODES:
        raise ValueError(f"episodes must be at most {MAX_EPISODES:,}, got {episodes}")
    check_argument("seed", seed, int | None, "seed")
    if seed is None:
        return seed_range("final", episodes)
    check_argument("seed + episodes - 1", seed + episodes - 1, int, "seed")
    return range(seed, seed + episodes)


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Sets torch's CPU threads for a block, and resets them afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
