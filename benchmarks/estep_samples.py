"""Compares ways to draw the actions of CVPO's E-step, by the errors that the sampling makes.

    python benchmarks/estep_samples.py RUN [RUN ...] [--out benchmarks/results/estep_samples.json]

For each run folder of CVPO, the script plays sampled episodes, takes a batch of 256 visited states, and
solves the E-step with the run's critics. The reference draws 4,096 independent actions in each state. Every
scheme is repeated with fresh random numbers. The script prints for each scheme

- the error of the actor's gradient, through its mean and through its deviation, as root mean square over the
  repetitions, divided by the norm of the reference's gradient;
- the bias: the norm of the mean error over all repetitions, likewise divided;
- mean and deviation of the temperature and of the cost multiplier, divided by those of the reference.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fsrl_ext.env import make
from fsrl_ext.experiment.saved.load import load_experiment
from fsrl_ext.functional.estep import solve_dual
from fsrl_ext.functional.gaussian import sample_actions
from fsrl_ext.functional.mstep import weighted_moments
from fsrl_ext.policy import CVPOPolicy
from fsrl_ext.report import text_table
from fsrl_ext.report.files import write_json

BATCH, REFERENCE = 256, 4096
# By name: whether the samples are stratified, whether their known moments are used, and their number.
SCHEMES = {
    "independent, 16": (False, False, 16),
    "independent, 16, known moments": (False, True, 16),
    "independent, 8, known moments": (False, True, 8),
    "stratified, 8": (True, False, 8),
    "stratified, 8, known moments": (True, True, 8),
    "stratified, 6, known moments": (True, True, 6),
    "stratified, 4, known moments": (True, True, 4),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", help="run folders of CVPO with a diagonal covariance")
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = [compare(run, options.repeats) for run in options.runs]
    if options.out:
        write_json(options.out, results, indent=1)


def compare(run: str, repeats: int) -> dict[str, Any]:
    """Prints and returns the errors of all schemes in the states of a run's policy."""
    policy, config, _ = load_experiment(run)
    assert isinstance(policy, CVPOPolicy), f"{run} is no run of CVPO"
    torch.manual_seed(0)
    step = EStep(policy, visited_states(policy, config.env_id))
    temperature, multiplier, *exact = step.solve(False, False, REFERENCE)
    rows, table = {}, []
    for name, scheme in SCHEMES.items():
        answers = [step.solve(*scheme) for _ in range(repeats)]
        row: dict[str, float] = {}
        for key, place, unit in (("temperature", 0, temperature), ("multiplier", 1, multiplier)):
            values = np.array([x[place] for x in answers]) / max(unit, 1e-12)
            row |= {key: float(values.mean()), f"{key} std": float(values.std())}
        for key, place in (("mean", 0), ("deviation", 1)):
            errors = torch.stack([x[2 + place] - exact[place] for x in answers])
            norm = exact[place].norm()
            row[f"{key} error"] = float(errors.square().sum(1).mean().sqrt() / norm)
            row[f"{key} bias"] = float(errors.mean(0).norm() / norm)
        rows[name] = row
        table.append([name, *(f"{row[x]:.2f}" for x in row)])
    print(f"{config.task}, {policy.action_space.shape[0]} actions, {repeats} repetitions")
    print(text_table(["scheme", *next(iter(rows.values()))], table), flush=True)
    return {"task": config.task, "repeats": repeats, "schemes": rows}


def visited_states(policy: CVPOPolicy, env_id: str) -> Tensor:
    """Returns ``[BATCH, O]`` normalised states of sampled episodes."""
    env = make(env_id)
    rows: list[np.ndarray] = []
    episode = 0
    while episode < 3 or len(rows) < BATCH:
        obs, _ = env.reset(seed=episode)
        done = False
        while not done:
            rows.append(obs)
            with torch.no_grad():
                mean, scale = policy.actor(policy.data.observations(torch.as_tensor(obs[None]).float()))[0]
                act = sample_actions(mean, scale, 1)[0, 0]
            obs, _, terminated, truncated, _ = env.step(policy.map_action(act))
            done = terminated or truncated
        episode += 1
    env.close()
    states = policy.data.observations(torch.as_tensor(np.array(rows)).float())
    return states[torch.randperm(len(states))[:BATCH]]


class EStep:
    """E-steps in the same states with fresh actions.

    The threshold lies below the cost of the old policy by a fifth of the deviation of Q_c over actions.
    """

    def __init__(self, policy: CVPOPolicy, obs: Tensor) -> None:
        self.policy, self.obs = policy, obs
        with torch.no_grad():
            self.mean, self.scale = policy.actor(obs)[0]
            self.slack = 0.2 * self.values(sample_actions(self.mean, self.scale, 64))[1].std(-1).mean()

    def values(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        return self.policy._reduce(self.policy.target_critic(self.obs, self.policy._executed(actions)))

    def solve(self, stratified: bool, known: bool, count: int) -> tuple[float, float, Tensor, Tensor]:
        """Returns temperature, multiplier, and the gradients of the actor's parameters, before any change.

        The gradients come through the mean and through the deviation.
        """
        mean, scale = self.mean, self.scale
        actions = sample_actions(mean, scale, count, stratified=stratified)
        with torch.no_grad():
            q_reward, q_cost = self.values(actions)
        threshold = q_cost.mean((1, 2)) - self.slack
        solution = solve_dual(
            q_reward, q_cost, kl_bound=self.policy.config.kl_bound, cost_threshold=threshold
        )
        moments = weighted_moments(solution.weights, actions, mean, scale, control_variate=known)
        grad_mean = -moments.first / scale.square() / BATCH
        grad_scale = (1.0 - moments.second / scale.square()) / (BATCH * scale)
        outputs, parameters = self.policy.actor(self.obs)[0], list(self.policy.actor.parameters())
        zero = torch.zeros_like(mean)
        gradients = [
            torch.autograd.grad(outputs, parameters, grads, allow_unused=True, retain_graph=True)
            for grads in ((grad_mean, zero), (zero, grad_scale))
        ]
        flat = [torch.cat([x.flatten() for x in grads if x is not None]) for grads in gradients]
        return solution.temperature, float(solution.multipliers[0]), flat[0], flat[1]


if __name__ == "__main__":
    main()
