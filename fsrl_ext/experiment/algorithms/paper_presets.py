"""Presets of the off-policy algorithms: the settings of the papers' released code, with their sources."""

from __future__ import annotations

from typing import Any

# The released code of Liu et al. 2022 (github.com/liuzuxin/cvpo-safe-rl) for its button and goal tasks, whose
# episodes have 400 steps: script/config/config_cvpo.yaml, and safe_rl/ or script/ where another is named.
# Its likelihood is a mean over the N = 32 samples and ours a weighted sum, so whatever is added to the
# likelihood, or clips its gradient, is N times as large here.
CVPO_PAPER: dict[str, Any] = {
    # E-step
    "kl_bound": 0.1,  # dual_constraint
    "num_samples": 32,  # sample_action_num
    "action_sampling": "independent",  # policy/cvpo.py
    "solver": "slsqp",  # policy/cvpo.py
    "threshold": "paper",  # policy/cvpo.py: qc_thres
    "cost_margin": 0.0,  # none
    "cost_level_rate": 1.0,  # each batch has to meet the threshold
    "cost_level": "critic",  # policy/cvpo.py: qc_thres
    # This library's own
    "normalise_signals": False,
    "normalise_observations": False,
    "bound_targets": False,
    # M-step
    "kl_bound_mean": 1e-3,  # kl_mean_constraint
    "kl_bound_scale": 1e-3,  # kl_var_constraint
    "kl_multiplier_lr": (0.032, 3.2),  # alpha_mean_scale 1, alpha_var_scale 100, times bound 1e-3, times N
    "kl_multiplier_max": (3.2, 320.0),  # alpha_mean_max 0.1, alpha_var_max 10, times N
    "mstep_iterations": 6,  # mstep_iteration_num
    "max_grad_norm": 0.32,  # policy/cvpo.py: 0.01, times N
    "old_policy": "polyak",  # policy/cvpo.py: actor_targ
    "old_policy_tau": 0.005,  # polyak 0.995
    # Critics
    "gamma": 0.99,
    "estimation_step": 1,  # policy/cvpo.py
    "cost_estimation_step": None,  # the same
    "tau": 0.005,  # polyak 0.995
    "reward_ensemble": 2,  # num_q
    "cost_ensemble": 1,  # num_qc
    # Networks and optimisers
    "covariance": "full",  # policy/cvpo.py: CholeskyGaussianActor
    "initial_std": 0.693,  # softplus(0), in policy/model/mlp_ac.py
    "hidden_sizes": (256, 256),
    "actor_lr": 2e-3,
    "critic_lr": 1e-3,
    # Data
    "batch_size": 300,
    "buffer_size": 80_000,
    "step_per_collect": 8_000,  # sample_episode_num 20, of 400 steps
    "update_per_step": 40 / 300,  # episode_rerun_num / batch_size
    "warmup_steps": 4_000,  # script/button.py, script/goal.py
    "collect_ahead": False,  # none: collecting and learning take turns
}

# The baselines of the same code: script/config/config_baseline.yaml, and safe_rl/ or script/ where another is
# named. What is left out: the floor at zero of the proportional part alone, and the entropy in the targets of
# SAC's costs, which costs do not have.
_BASELINE_PAPER: dict[str, Any] = {
    # This library's own
    "normalise_signals": False,
    "normalise_observations": False,
    "bound_targets": False,
    # Critics
    "gamma": 0.99,
    "estimation_step": 1,  # policy/sac.py, policy/ddpg.py, policy/td3.py
    "tau": 0.005,  # polyak 0.995
    "cost_ensemble": 1,  # num_qc
    # Networks and optimisers
    "hidden_sizes": (256, 256),
    "critic_lr": 1e-3,
    # Data
    "batch_size": 300,
    "buffer_size": 20_000,
    "step_per_collect": 8_000,  # sample_episode_num 20, of 400 steps
    "update_per_step": 40 / 300,  # episode_rerun_num / batch_size
    "warmup_steps": 4_000,  # script/button.py, script/goal.py
    "collect_ahead": False,  # none: collecting and learning take turns
}
SAC_PAPER: dict[str, Any] = {
    **_BASELINE_PAPER,
    "reward_ensemble": 2,  # num_q
    "actor_lr": 1e-3,
    "entropy": "fixed",  # policy/sac.py
    "alpha": 0.0085,
    "initial_std": 1.0,  # policy/model/mlp_ac.py: exp(0)
}
DDPG_PAPER: dict[str, Any] = {
    **_BASELINE_PAPER,
    "reward_ensemble": 1,  # num_q
    "actor_lr": 3e-4,
    "exploration_std": 0.1,  # act_noise
}
TD3_PAPER: dict[str, Any] = {
    **_BASELINE_PAPER,
    "reward_ensemble": 2,  # num_q
    "actor_lr": 1e-3,
    "exploration_std": 0.1,  # act_noise
    "target_std": 0.2,  # target_noise
    "target_clip": 0.5,  # noise_clip
    "policy_delay": 2,
}
# The authors' gains are per unit of discounted cost, and ours per surplus of the size of the limit: times
# 2.455, the discounted threshold of their tasks, 10 / 400 * (1 - 0.99**400) / (1 - 0.99).
MULTIPLIER_PAPER: dict[str, Any] = {
    "multiplier_source": "critic",  # policy/sac_lag.py: controller.control(qc_pi)
    "multiplier_method": "pid",
    "multiplier_gains": (0.2455, 0.007365, 0.002455),  # KP 0.1, KI 0.003, KD 0.001
    "cost_level": "critic",  # policy/sac_lag.py: qc_thres
    "threshold": "paper",  # policy/sac_lag.py: qc_thres
    "cost_margin": 0.0,  # none
    "rescale": False,  # policy/sac_lag.py: loss_pi
}

# What is CAL's own in Wu et al. 2024, from the released code (github.com/ZifanWu/CAL): arguments.py unless
# agent/cal.py is named. docs/algorithms/sac_lag.md lists what is left out.
CAL: dict[str, Any] = {
    # Theirs count discounted cost, and ours the limit as one: times 2.5, the threshold of their tasks.
    "augmented_penalty": 25.0,  # c 10
    "cost_ensemble": 4,  # qc_ens_size
    "cost_reduction": "ucb",
    "ucb_scale": 0.5,  # k
    "cost_targets": "own",  # intrgt_max off
    "multiplier_source": "critic",  # agent/cal.py: lam_loss
    "multiplier_method": "ascent",
    "multiplier_lr": 7.5e-4,  # lr 3e-4
    "multiplier_init": 0.6931,  # agent/cal.py: log_lam
    "cost_level": "critic",  # agent/cal.py: target_cost
    "threshold": "paper",  # agent/cal.py: target_cost
    "normalise_signals": False,
    "normalise_observations": False,
    "bound_targets": False,
    "rescale": False,  # agent/cal.py: actor_loss
    "cost_margin": 0.0,  # none
    "collect_ahead": False,  # none: collecting and learning take turns
}

# The same with what CAL shares with other versions of SAC, from arguments.py for the tasks of Safety-Gym.
CAL_PAPER: dict[str, Any] = {
    **CAL,
    "update_per_step": 10.0,  # num_train_repeat
    "batch_size": 12,  # policy_train_batch_size
    "estimation_step": 1,  # agent/cal.py
    "gamma": 0.99,
    "tau": 0.0025,  # 0.005 every second step: critic_target_update_frequency 2
    "reward_ensemble": 2,  # agent/model.py: QNetwork
    "hidden_sizes": (256, 256),  # hidden_size
    "actor_lr": 3e-4,  # lr
    "critic_lr": 3e-4,  # lr, qc_lr
    "initial_std": 1.0,  # agent/model.py: weights_init_, a bias of 0
    "alpha": 1.0,  # agent/cal.py: log_alpha
    "alpha_lr": 3e-4,  # lr
    "buffer_size": 1_000_000,  # replay_size
    "warmup_steps": 5_000,  # init_exploration_steps
}
