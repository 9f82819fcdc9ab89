"""Trains TRPO-Lag on SafetyAntRun-v0 on one core and on several: the time differs, and no number does.

python examples/mlp/ant_run.py --steps 300000 --cores 4
"""

import argparse

from fsrl_ext.experiment import make_config, run

TASK = "SafetyAntRun-v0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cores", type=int, help="of the second run (default: all of this machine)")
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    # workers="auto", the default, steps the environments of an on-policy run on every core that the run uses.
    config = make_config("trpo_lag", TASK, cost_limit=10, steps=args.steps, seed=args.seed, workers="auto")
    results = []
    for cores in (1, args.cores):
        result = run(config, out=args.out, cores=cores).result
        speed = result["env_step"] / max(result["seconds"], 0.1)
        print(f"{result['cores']} cores: {result['seconds']:.0f} s with evaluations, {speed:,.0f} steps/s")
        results.append(result)

    # Environments are seeded one by one, so it does not matter which process steps them.
    one, several = (result["last"] for result in results)
    print(f"the last policy's episodes are the same: {one['returns'] == several['returns']}")


if __name__ == "__main__":
    main()
