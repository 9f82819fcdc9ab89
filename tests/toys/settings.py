"""Settings with which a run of the command line's algorithms takes about a second."""

from __future__ import annotations

from fsrl_ext.experiment import make_config

OFFPOLICY_NAMES = ("cvpo", "sac_lag", "ddpg_lag", "td3_lag", "sac", "ddpg", "td3")
META_NAMES = ("meta_cpo", "maml_lag", "maml_trpo", "multitask_cpo")
# These have no limit to meet.
UNCONSTRAINED = ("sac", "ddpg", "td3", "trpo", "ppo", "maml_trpo")

ONPOLICY = {
    "steps": 800, "step_per_collect": 80, "num_envs": 4, "hidden_sizes": (16,), "batch_size": 32,
    "gamma": 0.9, "selections": 2, "selection_episodes": 4, "final_episodes": 4,
}  # fmt: skip
OFFPOLICY = {**ONPOLICY, "update_per_step": 0.1, "warmup_steps": 0}
META = {
    "steps": 640, "step_per_collect": 40, "num_envs": 4, "hidden_sizes": (6,), "critic_hidden_sizes": (8,),
    "gamma": 0.9, "selections": 2, "selection_episodes": 4, "final_episodes": 4, "num_tasks": 2,
    "inner_steps": 1, "cg_iterations": 5, "max_backtracks": 4,
}  # fmt: skip
# Limits of an episode's cost, which is at most 20 in the line and 10 in the bandits.
COST_LIMIT, META_COST_LIMIT = 2.0, 5.0


def small_config(name, task=None, **settings):
    """Return the config of a small run.

    :param name: an algorithm's name on the command line.
    :param task: None stands for the line or, for a meta-learner, the family of bandits.
    :param settings: settings that replace those of the family.
    """
    if name in META_NAMES:
        family, limit, default_task = META, META_COST_LIMIT, "MetaAim"
    else:
        family = OFFPOLICY if name in OFFPOLICY_NAMES else ONPOLICY
        limit, default_task = COST_LIMIT, "ToyLine-v0"
    own = {} if name in UNCONSTRAINED else {"cost_limit": limit}
    if name == "multitask_cpo":
        own["inner_steps"] = 0  # it does not adapt
    return make_config(name, task or default_task, **{**family, **own, **settings})
