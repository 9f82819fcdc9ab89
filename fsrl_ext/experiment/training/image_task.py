"""Whether algorithm, networks and task agree about images and memory."""

from __future__ import annotations

from tianshou.policy import BasePolicy

from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.registry import algorithms
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.experiment.training_config import AgentTraining
from fsrl_ext.net import ImageFeatures


def check_network(config: ExperimentConfig, spec: TaskSpec) -> None:
    """Checks that the kind of the networks is for the task's observations.

    :raises ValueError: naming the kind that is, or the algorithms that can see images.
    """
    network, shape = config.training.network, spec.image_shape
    if shape is None:
        if network == "gru" and spec.team is not None:
            raise ValueError(
                f"network must be 'mlp' for {config.task}, which has {len(spec.team.names)} agents, got 'gru'"
            )
        if network == "cnn":
            raise ValueError(
                f"network must be 'mlp' for {config.task}, whose observations are vectors of {spec.obs_dim} "
                f"numbers, got {network!r}; 'cnn' is for images, uint8 [H, W, C] or [C, H, W]"
            )
        return
    if not isinstance(config.training, AgentTraining):
        able = [name for name, row in algorithms().items() if issubclass(row.training, AgentTraining)]
        raise ValueError(
            f"{config.policy} cannot train {config.task}, whose observations are images {list(shape)}; "
            f"images are for {', '.join(able)}"
        )
    if network != "cnn":  # a recurrent one is for vectors, too
        raise ValueError(
            f"network must be 'cnn' for {config.task}, whose observations are images {list(shape)}, "
            f"got {network!r}"
        )


def check_sees_images(config: ExperimentConfig, spec: TaskSpec, policy: BasePolicy) -> None:
    """:raises ValueError: if the task has images, and actor or critic see vectors, as other packages' may."""
    if spec.image_shape is None:
        return
    for name in ("actor", "critic"):
        network = getattr(policy, name, None)
        if network is None or not any(isinstance(x, ImageFeatures) for x in network.modules()):
            raise ValueError(
                f"{config.policy} cannot train {config.task}, whose observations are images: its {name} "
                "does not see images (fsrl_ext.net.ImageFeatures makes features of them)"
            )


def check_is_recurrent(config: ExperimentConfig, policy: BasePolicy) -> None:
    """:raises ValueError: if network is gru, and the policy of another package is not recurrent."""
    if config.training.network == "gru" and not getattr(policy, "is_recurrent", False):
        raise ValueError(
            f"network must be 'mlp' for {config.policy}, which builds its own networks, got 'gru'"
        )
