"""Measures how much of what a trust-region step promises holds on data that the step has not seen.

    python benchmarks/held_out_step.py runs/learning/SafetyPointGoal1-v0-cpo-seed0 [--steps 20000]

The script collects several times with the last policy of a run of CPO or TRPO-Lag. The steps ``H^-1 a`` and
``H^-1 g`` of each collect, with a and g the gradients of its cost and reward surrogates, are judged by the
gradients of the same collect (which gives the promise: s and q of CPO's log) and by the gradients of the
other collects, which are unbiased. Standard errors are those of a jackknife over the collects. Half of the
squared length of a full step is ``kl_bound``, so a step can take at most ``sqrt(2 kl_bound s)`` off the cost
per step, and ``T`` times as much off the cost of an episode of T steps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from statistics_drift import NUM_ENVS, collect
from tianshou.env import DummyVectorEnv

from fsrl_ext.env import make
from fsrl_ext.experiment import load_policy
from fsrl_ext.experiment.training.checkpoint import read_checkpoint
from fsrl_ext.functional.conjugate_gradient import flatten
from fsrl_ext.policy import CPOPolicy, TRPOLagPolicy
from fsrl_ext.policy.onpolicy.trust_region import inverse_fisher, surrogate_loss, thinned


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="a run folder of CPO or TRPO-Lag")
    parser.add_argument("--steps", type=int, help="environment steps of a collect (default: as in the run)")
    parser.add_argument("--collects", type=int, default=6)
    options = parser.parse_args()
    if options.collects < 3:
        parser.error(f"--collects must be at least 3, got {options.collects}")
    checkpoint = options.run / "checkpoints" / "last.pt"
    config, policy = read_checkpoint(checkpoint)["config"], load_policy(checkpoint)
    if not isinstance(policy, CPOPolicy | TRPOLagPolicy):
        parser.error(f"run must be one of cpo, trpo_lag or trpo, got {config['policy']}")
    steps = options.steps or config["training"]["step_per_collect"]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    envs = DummyVectorEnv([lambda: make(config["task"])] * NUM_ENVS)
    envs.seed(0)
    gradients, inverses, costs, spread = [], [], [], []
    for _ in range(options.collects):
        data, cost = collect(policy, envs, steps)
        indices = data.sample_indices(0)
        rollout = policy._rollout(policy.process_fn(data[indices], data, indices))
        reward, cost_advantage = rollout.advantages[:, 0], rollout.advantages[:, 1:].T
        loss = surrogate_loss(
            policy.actor,
            rollout,
            (reward - reward.mean()) / reward.std(correction=0),
            cost_advantage - cost_advantage.mean(1, keepdim=True),
        )
        phi = flatten(policy.actor.parameters()).detach().requires_grad_()
        objective, constraints = loss(phi)
        signals = {f"cost {c} (s)": x for c, x in enumerate(constraints)} | {"reward (q)": objective}
        gradients.append(
            {name: torch.autograd.grad(x, phi, retain_graph=True)[0] for name, x in signals.items()}
        )
        states = thinned([rollout.obs], policy.config.fisher_fraction)
        inverses.append(inverse_fisher(policy.actor, states, phi, policy.config))
        costs.append(cost)
        spread.append(float(cost_advantage.std()))
    print(f"{options.collects} collects of {steps:,} steps, {phi.numel():,} parameters of the actor")
    print(
        f"cost of an episode {np.mean(costs):.1f}, deviation of the cost's advantages {np.mean(spread):.2f}"
    )
    for name in gradients[0]:
        moves = [inverse(own[name]) for inverse, own in zip(inverses, gradients, strict=True)]
        products = np.array([[float(judge[name] @ move) for judge in gradients] for move in moves])
        others, error = held_out(products)
        print(
            f"{name}: on the same data {products.diagonal().mean():.4f}, "
            f"on other data {others:.4f} ± {error:.4f}"
        )
    return 0


def held_out(products: np.ndarray) -> tuple[float, float]:
    """Returns the mean of products ``[N, N]`` of different collects, and its jackknife standard error."""

    def mean(kept: np.ndarray) -> float:
        part = products[np.ix_(kept, kept)]
        return float(part[~np.eye(len(kept), dtype=bool)].mean())

    everyone = np.arange(len(products))
    without = np.array([mean(np.delete(everyone, i)) for i in everyone])
    error = np.sqrt((len(everyone) - 1) * without.var())
    return mean(everyone), float(error)


if __name__ == "__main__":
    raise SystemExit(main())
