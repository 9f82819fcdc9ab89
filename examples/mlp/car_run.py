"""Builds CPO on SafetyCarRun-v0 by hand: an on-policy algorithm uses every collect once.

python examples/mlp/car_run.py --steps 300000
"""

import argparse

import torch
from tianshou.env import DummyVectorEnv

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.env import make, time_limit
from fsrl_ext.net import OnpolicyActor, ValueCritic
from fsrl_ext.policy import CPOPolicy
from fsrl_ext.trainer import CostOnpolicyTrainer, evaluate_policy, seed_range


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    env = make("SafetyCarRun-v0")
    train_envs, test_envs = (DummyVectorEnv([lambda: make("SafetyCarRun-v0")] * 10) for _ in range(2))
    obs_dim, act_dim = env.observation_space.shape[0], env.action_space.shape[0]
    # The actor needs no optimiser: its step is the solution of the constrained trust-region problem.
    critic = ValueCritic(obs_dim, hidden_sizes=(64, 64))
    policy = CPOPolicy(
        actor=OnpolicyActor(obs_dim, act_dim, hidden_sizes=(64, 64)),
        critic=critic,
        critic_optim=torch.optim.Adam(critic.parameters(), lr=1e-3),
        action_space=env.action_space,
        obs_dim=obs_dim,
        cost_limit=10,
        max_episode_steps=time_limit(env),
        kl_bound=0.01,
    )
    # The buffer holds one collect: three episodes of each environment, which end where the collect ends.
    collect = min(3 * time_limit(env) * 10, args.steps)
    buffer = CostVectorReplayBuffer(collect + 10, 10)
    test_collector = CostCollector(policy, test_envs)
    trainer = CostOnpolicyTrainer(
        policy=policy,
        train_collector=CostCollector(policy, train_envs, buffer),
        test_collector=test_collector,
        max_epoch=max(args.steps // collect, 1),
        step_per_epoch=collect,
        step_per_collect=collect,
        repeat_per_collect=10,
        batch_size=256,
        train_seeds=seed_range("train", 10, run_seed=args.seed),
    )
    trainer.run()
    result = evaluate_policy(test_collector, seed_range("final", 10), cost_limit=policy.cost_limit)
    print(f"last policy: return {result.return_mean:.1f}, cost {result.cost_mean[0]:.1f}, limit 10")


if __name__ == "__main__":
    main()
