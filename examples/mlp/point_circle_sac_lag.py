"""Builds SAC-Lag on safety-gymnasium's SafetyPointCircle1-v0 by hand, in Tianshou's style.

python examples/mlp/point_circle_sac_lag.py --steps 1000000
"""

import argparse

import torch
from tianshou.env import DummyVectorEnv

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.env import make, time_limit
from fsrl_ext.net import EnsembleCritic, GaussianActor
from fsrl_ext.policy import SACLagPolicy
from fsrl_ext.trainer import CostOffpolicyTrainer, evaluate_policy, seed_range


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="SafetyPointCircle1-v0")
    parser.add_argument("--cost-limit", type=float, default=25.0)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--selections", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)

    env = make(args.task)
    obs_dim, act_dim = env.observation_space.shape[0], env.action_space.shape[0]
    train_envs = DummyVectorEnv([lambda: make(args.task) for _ in range(10)])
    test_envs = DummyVectorEnv([lambda: make(args.task) for _ in range(5)])

    # The policy squashes the actor's samples into the box; reward and cost have two critics each.
    actor = GaussianActor(obs_dim, act_dim, hidden_sizes=(256, 256), bounded=False)
    critic = EnsembleCritic(obs_dim, act_dim, hidden_sizes=(256, 256), reward_ensemble=2, cost_ensemble=2)
    policy = SACLagPolicy(
        actor=actor,
        actor_optim=torch.optim.Adam(actor.parameters(), lr=5e-4),
        critic=critic,
        critic_optim=torch.optim.Adam(critic.parameters(), lr=1e-3),
        action_space=env.action_space,
        cost_limit=args.cost_limit,
        max_episode_steps=time_limit(env),
        gamma=0.99,
        estimation_step=3,
        cost_reduction="max",
    )

    train_collector = CostCollector(policy, train_envs, CostVectorReplayBuffer(200_000, len(train_envs)))
    test_collector = CostCollector(policy, test_envs)
    trainer = CostOffpolicyTrainer(
        policy=policy,
        train_collector=train_collector,
        test_collector=test_collector,
        max_epoch=args.selections,
        step_per_epoch=max(args.steps // args.selections, 1),
        step_per_collect=1000,
        update_per_step=0.2,
        batch_size=256,
        selection_seeds=seed_range("selection", 5),
        train_seeds=seed_range("train", len(train_envs), run_seed=args.seed),
    )
    trainer.run()

    result = evaluate_policy(test_collector, seed_range("final", 5), cost_limit=policy.cost_limit)
    multiplier = policy.multipliers.values.item()
    print(
        f"last policy: return {result.return_mean:.1f}, cost {result.cost_mean[0]:.1f}, "
        f"limit {args.cost_limit:g}, multiplier {multiplier:.2f}"
    )


if __name__ == "__main__":
    main()
