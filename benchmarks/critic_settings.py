"""Fits critics of a fixed policy to the replay buffer of a run, and measures whether they order actions.

    python benchmarks/critic_settings.py RUN [--episodes 100] [--cases steps=20 steps=3,tau=0.005 ...]

RUN is the folder of an unfinished run of CVPO with one cost, whose snapshot has the buffer. For each case,
fresh critics of reward and cost learn the values of the run's last policy from n-step targets. They are
judged by episodes of the policy that no critic has seen: the *slope* of the realised discounted sums over the
critic's differences between the action that was played and other actions of the same state is 1 for a critic
that is right, and 0 for differences that mean nothing; its interval resamples episodes. *spread* is the
standard deviation of the values over the actions of a state, in standard deviations of a step's reward or
cost. *states* is the correlation of the values of states with the realised sums.

The settings of a case are ``steps`` (n, 20), ``gamma`` (0.99), ``tau`` (0.05), ``lr`` (1e-3), ``batch``
(128), ``updates`` (12000), ``members`` (1, whose mean is judged), and ``target`` (0; 1 judges the target
networks).
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tianshou.policy.base import policy_within_training_step
from torch import Tensor, nn

from fsrl_ext.env import env_fn
from fsrl_ext.experiment.saved.load import load_experiment
from fsrl_ext.experiment.training.build import test_collector
from fsrl_ext.experiment.training.snapshot import read_snapshot
from fsrl_ext.report import text_table
from fsrl_ext.report.diagnosis.measures import discounted_sums

Value = Callable[[Tensor, Tensor], Tensor]
"""Values ``[n, 2]`` of reward and cost for observations and actions."""
ACTIONS = 32
"""Sampled actions of a state: the played one is compared with half of them, the others give a baseline."""
LAST_STEPS = 300
"""Steps at the end of an episode that are not judged, because their sums are cut."""
DEFAULT = ("steps=20", "steps=10", "steps=3", "steps=1", "steps=20,tau=0.005,target=1", "steps=20,members=4")


@dataclass(frozen=True, kw_only=True)
class Case:
    """How a critic learns; see the top of this file."""

    steps: int = 20
    gamma: float = 0.99
    tau: float = 0.05
    lr: float = 1e-3
    batch: int = 128
    updates: int = 12_000
    members: int = 1
    target: int = 0


class Lab:
    """Data of a run: its buffer, and episodes of its last policy.

    :param run: the run folder.
    :param episodes: to judge by; a multiple of 10.
    """

    def __init__(self, run: Path, episodes: int) -> None:
        policy, self.config, self.spec = load_experiment(run / "checkpoints" / "last.pt")
        self.policy: Any = policy.eval()
        stored = read_snapshot(run / "checkpoints" / "resume.pt")["trainer"]["collector"]["buffer"]
        # The oldest steps first
        shift = -(int(stored["counters"]["last"][0]) + 1)
        rows = {name: np.roll(np.array(x), shift, axis=1) for name, x in stored["arrays"].items()}
        self.shape = rows["rew"].shape
        self.obs, self.obs_next = self._normalised(rows["obs"]), self._normalised(rows["obs_next"])
        self.act = self._clipped(rows["act"])
        self.done = torch.as_tensor(rows["done"])
        signals = torch.as_tensor(np.stack([rows["rew"], rows["cost"][..., 0]], -1)).float()
        self.scale = signals.flatten(0, 1).std(0)
        self.signals = signals / self.scale
        self._play(episodes)

    def _normalised(self, obs: np.ndarray) -> Tensor:
        flat = np.ascontiguousarray(obs.reshape(-1, obs.shape[-1]))
        return self.policy.data.observations(torch.as_tensor(flat, dtype=torch.float32)).float()

    @staticmethod
    def _clipped(act: np.ndarray) -> Tensor:
        return torch.as_tensor(act.reshape(-1, act.shape[-1])).float().clamp(-1, 1)

    def _play(self, episodes: int) -> None:
        make_env = env_fn(self.config.env_id, **self.config.env_arguments)
        collector = test_collector(self.policy, self.config, self.spec, episodes=10, make_env=make_env)
        obs, act, signals = [], [], []
        torch.manual_seed(0)
        with policy_within_training_step(self.policy, enabled=True):
            for first in range(0, episodes, 10):
                collector.reset(gym_reset_kwargs={"seed": list(range(5_000_000 + first, 5_000_010 + first))})
                collector.collect(n_episode=10)
                for part in collector.buffer.buffers:
                    length = len(part)
                    obs.append(np.array(part.obs[:length]))
                    act.append(np.array(part.act[:length]))
                    cost = np.array(part.cost[:length]).reshape(length)
                    signals.append(np.stack([np.array(part.rew[:length]), cost], -1))
        collector.close()
        self.played = np.stack(signals)
        self.played_obs, self.played_act = self._normalised(np.stack(obs)), self._clipped(np.stack(act))

    @torch.no_grad()
    def sample(self, obs: Tensor, count: int) -> Tensor:
        """Actions ``[n, count, A]`` of the policy, as the critics see them."""
        (mean, std), _ = self.policy.actor(obs)
        return (mean[:, None] + std[:, None] * torch.randn(len(obs), count, mean.shape[1])).clamp(-1, 1)

    def fit(self, case: Case, seed: int = 0) -> Value:
        """A critic of the policy that learns from the buffer."""
        if case.members > 1:
            one = Case(**{**vars(case), "members": 1})
            values = [self.fit(one, seed) for seed in range(case.members)]
            return lambda obs, act: torch.stack([value(obs, act) for value in values]).mean(0)
        torch.manual_seed(seed)
        generator = np.random.default_rng(seed)
        critic = _network(self.obs.shape[1] + self.act.shape[1])
        target = copy.deepcopy(critic)
        optimiser = torch.optim.Adam(critic.parameters(), case.lr)
        weights = case.gamma ** torch.arange(case.steps).float()
        envs, length = self.shape
        for _ in range(case.updates):
            env = generator.integers(envs, size=case.batch)
            first = generator.integers(length - case.steps, size=case.batch)
            window = env[:, None], first[:, None] + np.arange(case.steps)
            ended = self.done[window]
            counts = (
                torch.cat([torch.zeros(case.batch, 1, dtype=torch.bool), ended[:, :-1]], 1).cumsum(1) == 0
            )
            number = counts.sum(1)
            places = env * length + first
            following = self.obs_next[places + number.numpy() - 1]
            with torch.no_grad():
                after = target(torch.cat([following, self.sample(following, 1)[:, 0]], 1))
                sums = (self.signals[window] * (weights * counts)[..., None]).sum(1)
                wanted = sums + (case.gamma**number)[:, None] * after
            error = critic(torch.cat([self.obs[places], self.act[places]], 1)) - wanted
            optimiser.zero_grad()
            error.square().mean().backward()
            optimiser.step()
            with torch.no_grad():
                for old, new in zip(target.parameters(), critic.parameters(), strict=True):
                    old.lerp_(new, case.tau)
        judged = target if case.target else critic
        return lambda obs, act: judged(torch.cat([obs, act], 1))

    @torch.no_grad()
    def judge(self, value: Value, gamma: float) -> list[list[str]]:
        """Cells of reward and cost: slope with its interval, spread, and correlation over states."""
        others = self.sample(self.played_obs, ACTIONS)
        values = torch.stack([value(self.played_obs, others[:, k]) for k in range(ACTIONS)], 1).numpy()
        half = ACTIONS // 2
        shape = self.played.shape
        gammas, nothing = np.full(2, gamma), np.zeros(2)
        sums = np.stack([discounted_sums(x, gammas, nothing) for x in self.played]) / self.scale.numpy()
        played = value(self.played_obs, self.played_act).numpy()
        predicted = (played - values[:, :half].mean(1)).reshape(shape)
        realised = sums - values[:, half:].mean(1).reshape(shape)
        kept = slice(0, shape[1] - LAST_STEPS)
        cells = []
        for k in range(2):
            x, y = predicted[:, kept, k], realised[:, kept, k]
            products, squares = (x * y).sum(1), (x * x).sum(1)
            draws = np.random.default_rng(0).integers(len(x), size=(1000, len(x)))
            low, high = np.percentile(products[draws].sum(1) / squares[draws].sum(1), (2.5, 97.5))
            slope = products.sum() / squares.sum()
            of_states = values[..., k].mean(1).reshape(shape[:2])[:, kept]
            correlation = np.corrcoef(of_states.ravel(), sums[:, kept, k].ravel())[0, 1]
            spread = values[..., k].std(1).mean()
            cells.append([f"{slope:.2f} [{low:.2f}, {high:.2f}]", f"{spread:.2f}", f"{correlation:.2f}"])
        return cells


def _network(inputs: int) -> nn.Sequential:
    layers = [nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2)]
    return nn.Sequential(*layers)


def _case(text: str) -> Case:
    kinds = {x.name: float if x.type == "float" else int for x in fields(Case)}
    pairs = [part.split("=") for part in text.split(",")]
    return Case(**{name: kinds[name](value) for name, value in pairs})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--cases", nargs="+", default=DEFAULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lab = Lab(options.run, options.episodes)
    rows = []
    for text in options.cases:
        case = _case(text)
        started = time.process_time()
        reward, cost = lab.judge(lab.fit(case), case.gamma)
        rows.append([text, *reward, *cost, f"{time.process_time() - started:.0f}"])
        print(rows[-1], file=sys.stderr, flush=True)
    names = [f"{signal} {what}" for signal in ("reward", "cost") for what in ("slope", "spread", "states")]
    print(text_table(["case", *names, "seconds"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
