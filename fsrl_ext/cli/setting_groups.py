"""The groups in which ``fsrl-ext train --help`` shows the settings, with those that most runs set first."""

from __future__ import annotations

from collections.abc import Mapping

from fsrl_ext.experiment.settings import Setting

COMMON = "most used"
ALGORITHM = "the algorithm"
DATA = "data"

GROUPS: dict[str, tuple[str, ...]] = {
    COMMON: ("cost_limit", "costs", "steps", "seed"),
    "the constraint (docs/cost_level.md)": (
        *("limit_unit", "cost_margin", "cost_limit_start", "cost_limit_decay_steps", "cost_level"),
        *(
            "cost_level_episodes",
            "cost_level_rate",
            "threshold",
            "limit_approach",
            "recovery_share",
            "margin_rate",
        ),
        *("multiplier_source", "multiplier_method", "multiplier_gains", "multiplier_smoothing"),
        *("multiplier_surplus_max", "multiplier_lr", "multiplier_init", "multiplier_max", "rescale"),
        *("augmented_penalty", "outer_constraint", "limit_gradient"),
    ),
    ALGORITHM: ("kl_bound", "num_samples", "clip", "temperature", "num_tasks", "inner_steps"),
    "returns and critics": (
        *("gamma", "cost_gamma", "estimation_step", "cost_estimation_step", "gae_lambda", "cost_gae_lambda"),
        *("tau", "time_limits", "goal_reward", "bound_targets", "cost_targets", "reward_ensemble"),
        *("cost_ensemble", "cost_reduction", "ucb_scale", "fit_critic_first"),
    ),
    "networks and optimisers": (
        *("network", "gru_size", "bptt_steps"),
        *("hidden_sizes", "critic_hidden_sizes", "actor", "critic", "shared_body", "covariance"),
        *(
            "initial_std",
            "mean_range",
            "actor_lr",
            "critic_lr",
            "critic_optimiser",
            "batch_size",
            "update_per_step",
            "repeat_per_collect",
        ),
        *("max_grad_norm",),
    ),
    DATA: (
        *("num_envs", "step_per_collect", "action_repeat", "warmup_steps", "buffer_size"),
        *("normalise_observations", "normalise_signals", "normalise_steps"),
    ),
    "several agents (docs/many_agents.md)": ("agents", "cost_unit"),
    "tests of the policy (docs/evaluation.md)": (
        *("selections", "selection_episodes", "selection_min_episodes", "final_episodes"),
        *("deterministic_eval", "average_tau"),
    ),
    "the machine (docs/throughput.md)": ("workers", "worker_type", "collect_ahead", "threads", "device"),
}
"""The names of settings by the title of their group, in the order of the help."""

_OTHERS = {"run": COMMON, "policy": ALGORITHM, "training": DATA}
"""The group of a setting that no group names, such as one of another package's algorithm."""


def grouped(settings: Mapping[str, Setting]) -> dict[str, list[str]]:
    """The names of the settings by the title of their group, each once, those that a group names first."""
    groups = {title: [name for name in names if name in settings] for title, names in GROUPS.items()}
    named = {name for names in GROUPS.values() for name in names}
    for name, setting in settings.items():
        if name not in named:
            groups[_OTHERS[setting.section]].append(name)
    return groups
