"""Saved policies on their way back into memory, and what playing them needs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tianshou.policy import BasePolicy

from fsrl_ext.errors import CheckpointError, check_argument, checked
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.experiment.training.build import check_device, fresh_policy
from fsrl_ext.experiment.training.checkpoint import in_this_version, read_checkpoint, restore
from fsrl_ext.experiment.training.permission import check_networks
from fsrl_ext.report.folder import checkpoint_file
from fsrl_ext.trainer import seed_range

MAX_EPISODES = 1_000_000
"""Episodes of an evaluation, at most; the seeds of final evaluations end there."""


@checked()
def load_policy(
    path: str | os.PathLike[str], *, device: str | None = None, allow_import: bool = False
) -> BasePolicy:
    """A policy that acts, without its environment: ``policy.compute_action(obs)``.

    A recurrent policy acts by :class:`~fsrl_ext.policy.EpisodeActor`, which remembers the episode.

    :param path: a checkpoint file, a run folder (its best policy), or ``zoo:NAME``.
    :param device: where to put it; the device it was trained on if not given.
    :param allow_import: whether the module of networks of the user's may be imported, which runs its code.
    :raises CheckpointError: if there is no usable checkpoint, the device it was trained on is not there, or a
        module would be imported without permission.
    :raises ValueError: if ``device`` is not there.
    """
    policy, _, _ = load_experiment(path, device=device, allow_import=allow_import)
    return policy


def load_experiment(
    path: str | os.PathLike[str], *, device: str | None = None, allow_import: bool = False
) -> tuple[BasePolicy, ExperimentConfig, TaskSpec]:
    """As :func:`load_policy`, with the experiment's config and the task's shapes."""
    file = checkpoint_file(path)
    if device is not None:
        check_device(device)
    data = read_checkpoint(file)
    settings = data["config"] | ({} if device is None else {"device": device})
    config = in_this_version(ExperimentConfig.from_dict, settings, data, file)
    check_networks(config.training, file, allow_import=allow_import)
    spec = in_this_version(TaskSpec.from_dict, data["spec"], data, file)
    if device is None:
        _check_device_of_training(config.device, file)
    try:
        policy = fresh_policy(config, spec)
    except ValueError as error:  # shapes and bounds that the policy cannot work with
        raise CheckpointError(f"{file} is damaged or edited: {error}") from error
    # A policy of the zoo comes without moments, which only further learning needs.
    restore(policy, data, optimisers=bool(data["optimisers"]), source=file)
    return policy.eval(), config, spec


def _check_device_of_training(device: str, file: Path) -> None:
    """:raises CheckpointError: if the device that a policy was trained on is not there."""
    try:
        check_device(device)
    except ValueError as error:
        raise CheckpointError(
            f"{file} was trained on the device {device!r}, which is not here; "
            f'device="cpu" (--device cpu) loads it on the CPU ({error})'
        ) from error


def load_saved(
    file: Path, device: str | None, *, allow_import: bool = False
) -> tuple[BasePolicy, ExperimentConfig, TaskSpec]:
    """As :func:`load_experiment`, without drawing from torch's random numbers."""
    with torch.random.fork_rng(devices=[]):  # fresh networks are drawn before they are overwritten
        return load_experiment(file, device=device, allow_import=allow_import)


def samples_in_evaluations(file: Path) -> bool:
    """Whether evaluations of a saved policy sample its actions, without being asked to.

    :raises CheckpointError: if there is no usable checkpoint.
    """
    data = read_checkpoint(file)
    config = in_this_version(ExperimentConfig.from_dict, data["config"], data, file)
    spec = in_this_version(TaskSpec.from_dict, data["spec"], data, file)
    # The config of another package's policy need not say.
    decide = getattr(config.policy_config, "samples_in_evaluations", None)
    return decide is not None and decide(discrete=spec.num_actions is not None)


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
