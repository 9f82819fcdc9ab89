"""Builds CVPO on SafetyCarCircle-v0 by hand, in Tianshou's style.

python examples/mlp/car_circle.py --steps 150000 --cost-limit 10
"""

import argparse

import torch
from tianshou.env import DummyVectorEnv
from tianshou.utils import TensorboardLogger
from torch.utils.tensorboard import SummaryWriter

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.env import make, time_limit
from fsrl_ext.net import EnsembleCritic, GaussianActor
from fsrl_ext.policy import CVPOPolicy
from fsrl_ext.trainer import CostOffpolicyTrainer, evaluate_policy, seed_range


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="SafetyCarCircle-v0")
    parser.add_argument("--cost-limit", type=float, default=10.0)
    parser.add_argument("--steps", type=int, default=150_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--logdir", default="runs/car_circle")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)

    # Environments have Gymnasium's API, float32 observations, and info["cost"] on every step.
    env = make(args.task)
    obs_dim, act_dim = env.observation_space.shape[0], env.action_space.shape[0]
    train_envs = DummyVectorEnv([lambda: make(args.task) for _ in range(10)])
    test_envs = DummyVectorEnv([lambda: make(args.task) for _ in range(10)])

    # The networks are a Gaussian actor, a critic for the reward and a critic for the cost.
    actor = GaussianActor(obs_dim, act_dim, hidden_sizes=(128, 128), initial_std=0.8)
    critic = EnsembleCritic(obs_dim, act_dim, hidden_sizes=(128, 128), reward_ensemble=1, cost_ensemble=1)
    policy = CVPOPolicy(
        actor=actor,
        actor_optim=torch.optim.Adam(actor.parameters(), lr=5e-4),
        critic=critic,
        critic_optim=torch.optim.Adam(critic.parameters(), lr=1e-3),
        action_space=env.action_space,
        cost_limit=args.cost_limit,
        max_episode_steps=time_limit(env),
        gamma=0.97,
    )

    # The collectors are Tianshou's and also collect costs.
    train_collector = CostCollector(policy, train_envs, CostVectorReplayBuffer(200_000, len(train_envs)))
    test_collector = CostCollector(policy, test_envs)

    # The trainer is Tianshou's loop; the best policy is the best one within the cost limit.
    best_path = f"{args.logdir}/best.pt"
    logger = TensorboardLogger(SummaryWriter(args.logdir))
    epochs = max(args.steps // 15_000, 1)
    trainer = CostOffpolicyTrainer(
        policy=policy,
        train_collector=train_collector,
        test_collector=test_collector,
        max_epoch=epochs,
        step_per_epoch=args.steps // epochs,
        step_per_collect=1000,
        update_per_step=0.4,
        batch_size=128,
        train_seeds=seed_range("train", len(train_envs), run_seed=args.seed),
        save_best_fn=lambda policy: torch.save(policy.state_dict(), best_path),
        logger=logger,
    )
    trainer.run()

    # The best policy is judged on seeds that training never saw.
    policy.load_state_dict(torch.load(best_path, weights_only=True))
    result = evaluate_policy(test_collector, seed_range("final", 20), cost_limit=policy.cost_limit)
    print(
        f"best policy: return {result.return_mean:.1f}, cost {result.cost_mean[0]:.1f}, "
        f"limit {args.cost_limit:g}; training episodes above it: {trainer.share_above_limit:.0%}"
    )


if __name__ == "__main__":
    main()
