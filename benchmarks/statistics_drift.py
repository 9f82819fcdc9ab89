"""Measures what moving observation statistics do to a policy: divergence and episode cost, update by update.

    fsrl-ext train cpo SafetyCarRun-v0 --steps 300000 --normalise-steps 2000000 --run-name moving
    python benchmarks/statistics_drift.py runs/moving

The script continues from the last policy of a run of CPO or TRPO. It makes each update in two parts: first
the algorithm's own update with the statistics held, then the move of the statistics. Sampled episodes measure
what each part did.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tianshou.env import DummyVectorEnv
from tianshou.policy.base import policy_within_training_step

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.env import make
from fsrl_ext.experiment import load_policy
from fsrl_ext.experiment.training.checkpoint import read_checkpoint
from fsrl_ext.policy.onpolicy.base import OnpolicyPolicy

NUM_ENVS = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="a run folder of CPO or TRPO")
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6_000, help="environment steps of a collect")
    options = parser.parse_args()
    checkpoint = options.run / "checkpoints" / "last.pt"
    task, policy = read_checkpoint(checkpoint)["config"]["task"], load_policy(checkpoint)
    assert isinstance(policy, OnpolicyPolicy)
    normaliser = policy.normaliser
    assert normaliser is not None, "the run does not normalise observations"
    torch.manual_seed(0)
    envs = DummyVectorEnv([lambda: make(task)] * NUM_ENVS)
    envs.seed(0)
    for _ in range(options.updates):
        data, before = collect(policy, envs, options.steps)
        normaliser.horizon = 0.0
        with policy_within_training_step(policy):
            update = policy.update(0, data, batch_size=256, repeat=10)
        data, between = collect(policy, envs, options.steps)
        normaliser.horizon = float("inf")
        drift = policy._move_statistics(normaliser, torch.from_numpy(data.obs[data.sample_indices(0)]))
        _, after = collect(policy, envs, options.steps)
        print(
            f"cost {before:.1f}, after the update {between:.1f} ({update.metrics['step/kl']:.4f} nats), "
            f"after the statistics {after:.1f} ({drift:.4f} nats)",
            flush=True,
        )
    return 0


def collect(policy: OnpolicyPolicy, envs: DummyVectorEnv, steps: int) -> tuple[CostVectorReplayBuffer, float]:
    """Collects new data; returns the mean cost of its episodes."""
    buffer = CostVectorReplayBuffer(steps + NUM_ENVS, NUM_ENVS)
    collector = CostCollector(policy, envs, buffer)
    collector.reset()
    with policy_within_training_step(policy):
        stats = collector.collect(n_step=steps)
    assert stats.costs_stat is not None
    return buffer, float(next(iter(stats.costs_stat.values())).mean)


if __name__ == "__main__":
    raise SystemExit(main())
