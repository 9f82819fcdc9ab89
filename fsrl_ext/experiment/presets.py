"""Named bundles of settings, applied over the defaults and under what the user sets."""

from __future__ import annotations

import difflib
from typing import Any

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "cvpo": {
        "tuned": {},
        # The released code of Liu et al. 2022 (button and goal tasks); kl_multiplier_max is theirs times N,
        # because our likelihood is a weighted sum over the samples and theirs a mean.
        "paper": {
            "solver": "slsqp",
            "old_policy": "polyak",
            "old_policy_tau": 0.005,
            "kl_bound": 0.1,
            "kl_bound_mean": 1e-3,
            "kl_bound_scale": 1e-3,
            "num_samples": 32,
            "mstep_iterations": 6,
            "threshold": "paper",
            "cost_margin": 0.0,
            "cost_level_rate": 1.0,
            "cost_calibration": 0.0,
            "gamma": 0.99,
            "estimation_step": 1,
            "actor_lr": 2e-3,
            "critic_lr": 1e-3,
            "batch_size": 300,
            "hidden_sizes": (256, 256),
            "reward_ensemble": 2,
            "cost_ensemble": 1,
            "buffer_size": 80_000,
            "update_per_step": 40 / 300,
        },
    },
    "sac_lag": {
        "tuned": {},
        # What is CAL's own in Wu et al. 2024: k, E, c and the multiplier's start and rate, as released.
        "cal": {
            "augmented_penalty": 10.0,
            "cost_ensemble": 4,
            "cost_reduction": "ucb",
            "ucb_scale": 0.5,
            "cost_targets": "own",
            "multiplier_source": "critic",
            "multiplier_method": "ascent",
            "multiplier_lr": 3e-4,
            "multiplier_init": 0.6931,
        },
    },
}


def preset_settings(policy: str, preset: str) -> dict[str, Any]:
    """:raises ValueError: if the policy has no preset of that name."""
    known = PRESETS.get(policy, {"tuned": {}})
    if preset not in known:
        near = difflib.get_close_matches(preset, known, n=1, cutoff=0.3)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"preset must be one of {', '.join(known)}, got {preset!r}{hint}")
    return known[preset]
