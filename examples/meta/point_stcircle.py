"""Meta-trains Meta-CPO on circles of many sizes, and adapts it to a circle larger than all of the training.

python examples/meta/point_stcircle.py --steps 3600000
python examples/meta/point_stcircle.py --run examples/meta/point_stcircle.pt   # adapts a trained policy
"""

import argparse

import numpy as np

from fsrl_ext.env.meta import TaskDescription, held_out_suite
from fsrl_ext.experiment import adapt, load_policy, make_config, run
from fsrl_ext.experiment.saved.adapt_report import adaptation_table
from fsrl_ext.report import plot_trajectories

FAMILY = "SafetyPointStcircle"


def positions(policy, task: TaskDescription, seed: int) -> np.ndarray:
    """Plays a deterministic episode and returns the robot's positions ``[T, 2]`` in metres."""
    env, path, ended = task.make(), [], False
    obs, _ = env.reset(seed=seed)
    while not ended:
        path.append(env.unwrapped.simulator.task.agent.pos[:2].copy())
        obs, _, terminated, truncated, _ = env.step(policy.compute_action(obs))
        ended = terminated or truncated
    return np.array(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", help="adapt a finished run or a checkpoint file instead of training")
    parser.add_argument("--steps", type=int, default=3_600_000)
    parser.add_argument("--adapt-steps", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", default="trajectories.png", help="file of the trajectories' picture")
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    source = args.run
    if source is None:
        config = make_config("meta_cpo", FAMILY, cost_limit=25, steps=args.steps, seed=args.seed)
        source = run(config, out=args.out).folder
    task = held_out_suite(FAMILY, "outside")[0]
    adaptation = adapt(source, task, steps=args.adapt_steps, seed=args.seed)
    print(f"{task.id}: {', '.join(f'{name} {value:g}' for name, value in task.parameters.items())}")
    print(adaptation_table(adaptation))

    policies = {"meta-policy": load_policy(source), f"after {args.adapt_steps} steps": adaptation.policy}
    plot_trajectories(
        {label: [positions(policy, task, seed) for seed in range(3)] for label, policy in policies.items()},
        radius=task.parameters["radius"],
        wall=task.parameters["wall"],
        path=args.picture,
    )
    print(f"trajectories: {args.picture}")


if __name__ == "__main__":
    main()
