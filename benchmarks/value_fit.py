"""Compares the fit of the value networks with that of one L-BFGS for all of them, on the data of Meta-CPO.

    python benchmarks/value_fit.py                      # the fits of three meta-iterations
    python benchmarks/value_fit.py --iterations 1

Meta-CPO with its default settings and one torch thread makes some meta-iterations. Each of its fits is
repeated from the same parameters by one L-BFGS for all networks, whose gradients autograd computes.
The script prints medians of the processor milliseconds of a fit and of the
shares of the variances that the fits leave unexplained, and the geometric mean of the ratios of these shares.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import time
from typing import Any

import torch
from tianshou.policy.base import policy_within_training_step
from torch import Tensor, nn

from fsrl_ext.env.meta import TaskDistribution
from fsrl_ext.experiment import make_config
from fsrl_ext.experiment.training import build


def unexplained(critic: nn.Module, obs: Tensor, targets: Tensor) -> list[float]:
    """Returns the unexplained share of the variance of reward and costs."""
    with torch.no_grad():
        return ((critic(obs) - targets).square().mean(0) / targets.var(0, correction=0)).tolist()


def fit_jointly(critic: nn.Module, optim: torch.optim.LBFGS, obs: Tensor, targets: Tensor) -> None:
    """Fits all networks by one L-BFGS with the settings of ``optim``."""
    settings = {name: value for name, value in optim.param_groups[0].items() if name != "params"}
    joint = torch.optim.LBFGS(critic.parameters(), **settings)

    def backward() -> float:
        joint.zero_grad()
        with torch.enable_grad():
            loss = (critic(obs) - targets).square().mean(0).sum()
        loss.backward()
        return float(loss.detach())

    joint.step(backward)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="SafetyPointStcircle")
    parser.add_argument("--iterations", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = make_config("meta_cpo", options.task)
    build.seed_everything(config)
    policy: Any = build.build_policy(config)[0]
    collector: Any = build.train_collector(policy, config)
    milliseconds: dict[str, list[float]] = {"joint": [], "each": []}
    shares: dict[str, list[list[float]]] = {"joint": [], "each": []}
    fit = policy._fit_critic

    def watched(obs: Tensor, returns: Tensor, *args: Any, **kwargs: Any) -> Any:
        other, targets = copy.deepcopy(policy.critic), returns / policy.signal_scale
        begun = time.process_time()
        fit_jointly(other, policy.critic_optim, obs, targets)
        between = time.process_time()
        metrics = fit(obs, returns, *args, **kwargs)
        milliseconds["joint"].append(1e3 * (between - begun))
        milliseconds["each"].append(1e3 * (time.process_time() - between))
        shares["joint"].append(unexplained(other, obs, targets))
        shares["each"].append(unexplained(policy.critic, obs, targets))
        return metrics

    policy._fit_critic = watched
    tasks, k = TaskDistribution(options.task, seed=0), policy.config.num_tasks
    for iteration in range(options.iterations):
        for number, task in enumerate(tasks.draw(k, start=iteration * k)):
            collector.start(task, [1000 * iteration + 100 * number + i for i in range(config.num_envs)])
            policy.begin_task(record=True)
            for step in range(policy.config.inner_steps + 1):
                collector.collect()
                if step < policy.config.inner_steps:
                    with policy_within_training_step(policy):
                        policy.update(0, collector.buffer)
            policy.finish_task(collector.buffer)
        collector.close()
        policy.meta_step()
    for name, times in milliseconds.items():
        medians = [round(statistics.median(x), 4) for x in zip(*shares[name], strict=True)]
        print(f"{name:6s} {statistics.median(times):6.0f} ms, unexplained reward and costs {medians}")
    ratios = [
        math.exp(statistics.mean(math.log(a / b) for a, b in zip(each, joint, strict=True)))
        for each, joint in zip(
            zip(*shares["each"], strict=True), zip(*shares["joint"], strict=True), strict=True
        )
    ]
    print("each by itself / joint:", [round(x, 3) for x in ratios], f"over {len(shares['each'])} fits")


if __name__ == "__main__":
    main()
