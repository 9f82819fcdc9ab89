"""Meta-trains Meta-CPO on circles of many sizes, and adapts it to a circle larger than all of the training.

python examples/meta/point_stcircle.py --steps 3600000
python examples/meta/point_stcircle.py --run examples/meta/point_stcircle.pt   # adapts a trained policy
"""

import argparse
from pathlib import Path

import numpy as np

from fsrl_ext.env.meta import TaskDescription, held_out_suite
from fsrl_ext.experiment import adapt, load_policy, make_config, run
from fsrl_ext.experiment.saved.adapt_report import adaptation_table
from fsrl_ext.report import plot_trajectories, result_table

FAMILY = "SafetyPointStcircle"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", help="adapt a finished run or a checkpoint file instead of training")
    parser.add_argument("--steps", type=int, default=3_600_000)
    parser.add_argument("--step-per-collect", type=int, default=3000)
    parser.add_argument("--adapt-steps", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    parser.add_argument("--picture", help="file for the trajectories' picture (default: in the run's folder)")
    args = parser.parse_args()

    source = Path(args.run or train(args))
    task = held_out_suite(FAMILY, "outside")[0]
    found = adapt(source, task, steps=args.adapt_steps, episodes=args.episodes, seed=args.seed)
    print(f"\n{task.id}: {', '.join(f'{k} {v:g}' for k, v in task.parameters.items())}")
    print(adaptation_table(found))
    before, after = (found.points[i].tested for i in (0, -1))
    print(f"before: return {before.return_mean:.1f}, cost {before.cost_mean[0]:.1f}")
    print(f"after:  return {after.return_mean:.1f}, cost {after.cost_mean[0]:.1f}")

    picture = Path(args.picture or (source if source.is_dir() else source.parent) / "trajectories.png")
    policies = {"meta-policy": load_policy(source), f"after {args.adapt_steps} steps": found.policy}
    plot_trajectories(
        {label: [positions(policy, task, seed) for seed in range(3)] for label, policy in policies.items()},
        radius=task.parameters["radius"],
        wall=task.parameters["wall"],
        path=picture,
        title=task.id,
    )
    print(f"trajectories: {picture}")


def train(args: argparse.Namespace) -> Path:
    """Trains a meta-policy and returns its run folder."""
    config = make_config(
        "meta_cpo",
        FAMILY,
        cost_limit=25,
        steps=args.steps,
        step_per_collect=args.step_per_collect,
        selection_episodes=args.episodes,
        final_episodes=args.episodes,
        seed=args.seed,
    )
    done = run(config, out=args.out)
    print(result_table(done.result))
    return Path(done.folder)


def positions(policy, task: TaskDescription, seed: int) -> np.ndarray:
    """Plays a deterministic episode and returns the robot's positions ``[T, 2]``."""
    env = task.make()
    robot = env.unwrapped.simulator.task.agent
    obs, _ = env.reset(seed=seed)
    path, ended = [robot.pos[:2].copy()], False
    while not ended:
        obs, _, terminated, truncated, _ = env.step(policy.compute_action(obs))
        path.append(robot.pos[:2].copy())
        ended = terminated or truncated
    env.close()
    return np.array(path)


if __name__ == "__main__":
    main()
