"""Exports what DDPG-Lag learnt on SafetyCarCircle1-v0, and plays an episode with the exported file alone.

python examples/mlp/car_circle1.py --steps 1000000 --format onnx
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fsrl_ext.env import make
from fsrl_ext.experiment import export_policy, make_config, run

TASK = "SafetyCarCircle1-v0"


def load(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from observations ``[B, O]`` to actions ``[B, A]``, which needs no fsrl_ext."""
    if file.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file))
        return lambda obs: session.run(["action"], {"obs": obs})[0]
    policy = torch.jit.load(str(file))
    return lambda obs: policy(torch.from_numpy(obs)).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", choices=("onnx", "torchscript"), default="torchscript")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    # The run begins with random actions, of which a short one affords fewer than the default.
    settings = {"warmup_steps": min(10_000, args.steps // 10), "seed": args.seed}
    done = run(make_config("ddpg_lag", TASK, cost_limit=25, steps=args.steps, **settings), out=args.out)
    exported = export_policy(done.folder, done.folder / f"policy.{args.format}", format=args.format)
    print(f"{exported.path}: within {exported.difference:.1e} of the policy's own actions")

    act, env = load(exported.path), make(TASK)
    obs, _ = env.reset(seed=0)
    total_return, total_cost, ended = 0.0, 0.0, False
    while not ended:
        obs, reward, terminated, truncated, info = env.step(act(obs[None])[0])
        total_return, total_cost = total_return + reward, total_cost + info["cost"]
        ended = terminated or truncated
    print(f"one episode with the file: return {total_return:.1f}, cost {total_cost:.1f}")


if __name__ == "__main__":
    main()
