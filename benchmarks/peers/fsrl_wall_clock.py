"""Trains FSRL's CVPO and prints what its test episodes gave; ``benchmarks/wall_clock.py`` reads and ends it.

    PEER/bin/python benchmarks/peers/fsrl_wall_clock.py --task SafetyCarCircle-v0 --every 6000

``fsrl_offpolicy.py`` says how to make the environment of ``PEER``. Policy, networks, collector, trainer and
settings are FSRL's own. Ten test environments are made once, by the same class of vector environments as the
training environments, and play ten deterministic episodes side by side, which is the fastest that FSRL's own
test collector can do. Their seeds are the selection seeds of ``docs/evaluation.md``. Training goes on until
the process is ended.
"""

from __future__ import annotations

import argparse
import json
import random
from typing import Any

import gymnasium
import numpy as np
import torch
from bullet_evaluation import SELECTION_SEEDS
from fsrl_offpolicy import AGENTS, WORKERS, build
from tianshou.data import Batch


def main() -> None:
    options = parse()
    agent, config_type = AGENTS["cvpo"]
    config = config_type(
        task=options.task, cost_limit=options.cost_limit, seed=options.seed, thread=options.threads
    )
    config.worker = WORKERS[options.worker].__name__
    config.training_num = min(config.training_num, config.episode_per_collect)  # as FSRL's example does
    policy, trainer = build(agent, config, None)
    tests = TestEpisodes(options.task, WORKERS[options.worker])
    tested = 0
    for _ in trainer:
        if trainer.env_step // options.every > tested:
            tested = trainer.env_step // options.every
            returns, costs = tests.play(policy)
            point = {"env_step": trainer.env_step, "returns": returns.tolist(), "costs": costs.tolist()}
            print("evaluation", json.dumps(point), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", default="SafetyCarCircle-v0", help="a task of bullet-safety-gym")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cost-limit", type=float, default=10.0)
    parser.add_argument("--every", type=int, default=6000, help="environment steps between two tests")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worker", choices=WORKERS, default="dummy")
    return parser.parse_args()


class TestEpisodes:
    """Test environments side by side, one for each selection seed."""

    def __init__(self, task: str, worker: Any) -> None:
        self.envs = worker([lambda: SeededReset(gymnasium.make(task)) for _ in SELECTION_SEEDS])

    def play(self, policy: Any) -> tuple[np.ndarray, np.ndarray]:
        """Plays deterministic episodes; afterwards the training's random streams and mode are as before.

        :return: returns and costs ``[episodes]``.
        """
        saved = random.getstate(), np.random.get_state()  # noqa: NPY002
        policy.eval()
        returns, costs = np.zeros(len(SELECTION_SEEDS)), np.zeros(len(SELECTION_SEEDS))
        for worker, seed in zip(self.envs.workers, SELECTION_SEEDS, strict=True):
            worker.send(None, seed=seed)
        obs = np.stack([worker.recv()[0] for worker in self.envs.workers])
        ids = np.arange(len(SELECTION_SEEDS))
        while len(ids):
            with torch.no_grad():
                act = policy(Batch(obs=obs, info={})).act.numpy()
            obs, rewards, terminated, truncated, infos = self.envs.step(policy.map_action(act), ids)
            returns[ids] += rewards
            costs[ids] += [info["cost"] for info in infos]
            going = ~(terminated | truncated)
            ids, obs = ids[going], obs[going]
        policy.train()
        random.setstate(saved[0])
        np.random.set_state(saved[1])  # noqa: NPY002
        return returns, costs


class SeededReset(gymnasium.Wrapper):
    """Seeds the global streams, which bullet-safety-gym's resets draw from."""

    def reset(self, *, seed: int, **kwargs: Any) -> Any:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        return self.env.reset(**kwargs)


if __name__ == "__main__":
    main()
