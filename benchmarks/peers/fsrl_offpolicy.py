"""Times and evaluates FSRL's off-policy agents (PyPI ``fast-safe-rl``) as ours; runs with the peer's Python.

    python3.11 -m venv PEER && PEER/bin/pip install torch==2.13.0 numpy==1.26.4
    PEER/bin/pip install --no-deps -r benchmarks/peers/fsrl-requirements.txt
    PEER/bin/python benchmarks/peers/fsrl_offpolicy.py --policy cvpo --steps 300000 --json out.json

Policy, networks, collector, trainer and settings are FSRL's own. The script adds the clocks, the count of
episodes above the limit, and the evaluation of ``docs/evaluation.md`` with the same episodes as for our
policies. Steps are environment steps of training: FSRL has no random warm-up, and updates follow the first
collect. Its trainer collects whole episodes, so a run ends with the collect that reaches ``--steps``.

FSRL's examples start one process for each environment (``--worker shmem``). The default here, ``dummy``,
steps the environments in the training process, as fsrl_ext does, and is faster on a single core. ``cycles``
has the times of each collect and its updates; medians should leave out the first ones.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import bullet_safety_gym  # noqa: F401  (registers the tasks)
import gymnasium
import numpy as np
from bullet_evaluation import FINAL_SEEDS, SELECTION_SEEDS, evaluate
from tianshou.data import VectorReplayBuffer
from tianshou.env import DummyVectorEnv, ShmemVectorEnv

# FSRL imports wandb for a logger that is not used here.
sys.modules["wandb"] = ModuleType("wandb")

from fsrl.agent import CVPOAgent, DDPGLagAgent, SACLagAgent  # noqa: E402
from fsrl.config import cvpo_cfg, ddpgl_cfg, sacl_cfg  # noqa: E402
from fsrl.data import FastCollector  # noqa: E402
from fsrl.trainer import OffpolicyTrainer  # noqa: E402
from fsrl.utils import BaseLogger  # noqa: E402

WORKERS = {"dummy": DummyVectorEnv, "shmem": ShmemVectorEnv}
AGENTS = {
    "cvpo": (CVPOAgent, cvpo_cfg.TrainCfg),
    "ddpg_lag": (DDPGLagAgent, ddpgl_cfg.TrainCfg),
    "sac_lag": (SACLagAgent, sacl_cfg.TrainCfg),
}
SELECTIONS = 50


def main() -> None:
    options = parse()
    config_type = AGENTS[options.policy][1]  # bullet tasks' configs differ in the number of epochs only
    config = config_type(
        task=options.task, cost_limit=options.cost_limit, seed=options.seed, thread=options.threads
    )
    config.batch_size = options.batch_size or config.batch_size
    if options.num_samples:
        config.sample_act_num = options.num_samples
    config.worker = WORKERS[options.worker].__name__
    config.training_num = min(config.training_num, config.episode_per_collect)  # as FSRL's example does
    train(options, config)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--policy", choices=AGENTS, default="cvpo")
    parser.add_argument("--task", default="SafetyCarCircle-v0", help="a task of bullet-safety-gym")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300_000)
    parser.add_argument("--cost-limit", type=float, default=10.0)
    parser.add_argument("--batch-size", type=int, help="transitions of a gradient step (default: FSRL's)")
    parser.add_argument("--num-samples", type=int, help="actions per state in the E-step (default: FSRL's)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worker", choices=WORKERS, default="dummy")
    parser.add_argument("--no-eval", action="store_true", help="skip selections and the final evaluation")
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


def train(options: argparse.Namespace, config: Any) -> None:
    """Trains, evaluates on the way, and writes the result after each selection."""
    episodes = EpisodeCosts(config.training_num)
    policy, trainer = build(AGENTS[options.policy][0], config, episodes)
    updates = UpdateClock(policy)
    result: dict[str, Any] = {"finished": False, "curve": [], "selections": [], "cycles": []}
    best, best_actor = None, None
    judged = options.task, options.cost_limit
    iterator = iter(trainer)
    while trainer.env_step < options.steps:
        before = clocks(trainer, updates)
        _, stats, _ = next(iterator)
        result["cycles"].append({k: now - before[k] for k, now in clocks(trainer, updates).items()})
        point = {
            "env_step": trainer.env_step,
            "train_return": stats["train/reward"],
            "train_cost": stats["train/cost"],
            "share_above_limit": episodes.share_above(options.cost_limit),
        }
        result["curve"].append(point)
        reached, earlier = (n * SELECTIONS // options.steps for n in (trainer.env_step, before["env_steps"]))
        if reached > earlier and not options.no_eval:
            selection = evaluate(policy, *judged, trainer.env_step, SELECTION_SEEDS)
            result["selections"].append(selection.summary())
            if selection.is_better_than(best):
                best, best_actor = selection, copy.deepcopy(policy.actor.state_dict())
            write(options, config, result)
    if best is not None:
        result["last"] = evaluate(policy, *judged, trainer.env_step, FINAL_SEEDS).summary()
        policy.actor.load_state_dict(best_actor)
        result["best"] = evaluate(policy, *judged, best.env_step, FINAL_SEEDS).summary()
    write(options, config, result | {"finished": True})


def clocks(trainer: OffpolicyTrainer, updates: UpdateClock) -> dict[str, float]:
    """Returns counters whose differences are a cycle; evaluations come between two readings."""
    return {
        "env_steps": trainer.env_step,
        "gradient_steps": updates.count,
        "collect_seconds": trainer.train_collector.collect_time,
        "update_seconds": updates.seconds,
        "seconds": time.perf_counter(),
    }


def build(agent_type: Any, config: Any, episodes: EpisodeCosts | None) -> tuple[Any, OffpolicyTrainer]:
    """Builds what an agent's ``learn`` builds, with epochs of a single collect and without test episodes."""
    known = inspect.signature(agent_type).parameters
    settings = {name: value for name, value in asdict(config).items() if name in known}
    logger = BaseLogger()
    agent = agent_type(gymnasium.make(config.task), logger, **settings)
    agent.policy.train()
    worker = {w.__name__: w for w in WORKERS.values()}[config.worker]
    envs = worker([lambda: gymnasium.make(config.task) for _ in range(config.training_num)])
    collector = FastCollector(
        agent.policy,
        envs,
        VectorReplayBuffer(config.buffer_size, len(envs)),
        preprocess_fn=episodes,
        exploration_noise=True,
    )
    trainer = OffpolicyTrainer(
        agent.policy,
        collector,
        max_epoch=sys.maxsize,
        step_per_epoch=1,
        batch_size=config.batch_size,
        cost_limit=config.cost_limit,
        update_per_step=config.update_per_step,
        episode_per_collect=config.episode_per_collect,
        episode_per_test=config.testing_num,
        logger=logger,
        verbose=False,
        show_progress=False,
    )
    return agent.policy, trainer


class EpisodeCosts:
    """A ``preprocess_fn`` that records costs of single training episodes; FSRL itself keeps their mean."""

    def __init__(self, count: int) -> None:
        self.running = np.zeros(count)
        self.finished: list[float] = []

    def __call__(self, *, env_id: np.ndarray, **data: Any) -> dict[str, Any]:
        if "done" in data:  # a step, not a reset
            self.running[env_id] += data["info"]["cost"]
            ended = env_id[data["done"]]
            self.finished += self.running[ended].tolist()
            self.running[ended] = 0.0
        return {}

    def share_above(self, limit: float) -> float:
        return float(np.mean(np.array(self.finished) > limit))


class UpdateClock:
    """Counts and times a policy's gradient steps."""

    def __init__(self, policy: Any) -> None:
        self.seconds, self.count = 0.0, 0
        self._update, policy.update = policy.update, self

    def __call__(self, *args: Any) -> None:
        started = time.perf_counter()
        self._update(*args)
        self.seconds += time.perf_counter() - started
        self.count += 1


def write(options: argparse.Namespace, config: Any, result: dict[str, Any]) -> None:
    """Writes the result so far in one move, under the names of our own result files."""
    cycles, curve = columns(result["cycles"]), columns(result["curve"])
    env_steps, seconds, updates = (sum(cycles[k]) for k in ("env_steps", "seconds", "gradient_steps"))
    packages = ("fast-safe-rl", "tianshou", "torch", "numpy", "gymnasium", "bullet-safety-gym")
    samples = f" --num-samples {options.num_samples}" if options.num_samples else ""
    head = {
        "command": f"benchmarks/peers/fsrl_offpolicy.py --policy {options.policy} --task {options.task}"
        f" --seed {options.seed} --steps {options.steps} --cost-limit {options.cost_limit:g}"
        f" --batch-size {config.batch_size}{samples}"
        f" --threads {options.threads} --worker {options.worker}{' --no-eval' * options.no_eval} --json FILE",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "cores": os.cpu_count(),
        "config": asdict(config) | {"cost_limit": [options.cost_limit]},
        "env_step": env_steps,
        "gradient_step": updates,
        "seconds": seconds,
        "steps_per_second": env_steps / seconds,
        "ms_per_gradient_step": 1000 * sum(cycles["update_seconds"]) / max(updates, 1),
        "train_episodes": len(curve["env_step"]) * config.episode_per_collect,
        "share_above_limit": curve["share_above_limit"][-1],
    }
    tables = {"curve": curve, "selections": columns(result["selections"])}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    partial = options.json.with_suffix(".part")
    partial.write_text(json.dumps(rounded(head | result | tables), indent=1, allow_nan=False) + "\n")
    partial.replace(options.json)


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def rounded(value: Any) -> Any:
    """Returns plain numbers, with six digits for those that are not whole."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v) for v in value]
    if isinstance(value, float | np.number):
        return float(f"{value:.6g}")
    return value


if __name__ == "__main__":
    main()
