"""Builds CVPO on SafetyCarCircle-v0 by hand, in Tianshou's style: networks, policy, collectors, trainer.

python examples/mlp/car_circle.py --steps 150000
"""

import argparse

import torch
from tianshou.env import DummyVectorEnv

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.env import make, time_limit
from fsrl_ext.net import EnsembleCritic, GaussianActor
from fsrl_ext.policy import CVPOPolicy
from fsrl_ext.trainer import CostOffpolicyTrainer, evaluate_policy, seed_range


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", default="car_circle.pt", help="file of the best policy's parameters")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    # Environments have Gymnasium's API, float32 observations, and info["cost"] on every step.
    env = make("SafetyCarCircle-v0")
    train_envs, test_envs = (DummyVectorEnv([lambda: make("SafetyCarCircle-v0")] * 10) for _ in range(2))
    sizes = env.observation_space.shape[0], env.action_space.shape[0]
    actor = GaussianActor(*sizes, hidden_sizes=(128, 128), initial_std=0.8)
    critic = EnsembleCritic(*sizes, hidden_sizes=(128, 128), reward_ensemble=1, cost_ensemble=1)
    policy = CVPOPolicy(
        actor=actor,
        actor_optim=torch.optim.Adam(actor.parameters(), lr=5e-4),
        critic=critic,
        critic_optim=torch.optim.Adam(critic.parameters(), lr=1e-3),
        action_space=env.action_space,
        cost_limit=10,
        max_episode_steps=time_limit(env),
    )
    # The trainer is Tianshou's loop; the best policy is the best one within the cost limit.
    test_collector = CostCollector(policy, test_envs)
    CostOffpolicyTrainer(
        policy=policy,
        train_collector=CostCollector(policy, train_envs, CostVectorReplayBuffer(200_000, 10)),
        test_collector=test_collector,
        max_epoch=max(args.steps // 15_000, 1),
        step_per_epoch=min(args.steps, 15_000),
        step_per_collect=1000,
        update_per_step=0.4,
        batch_size=128,
        train_seeds=seed_range("train", 10, run_seed=args.seed),
        save_best_fn=lambda policy: torch.save(policy.state_dict(), args.save),
    ).run()
    # The best policy is judged on seeds that training never saw.
    policy.load_state_dict(torch.load(args.save, weights_only=True))
    print(evaluate_policy(test_collector, seed_range("final", 10), cost_limit=policy.cost_limit).summary())


if __name__ == "__main__":
    main()
