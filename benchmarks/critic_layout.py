"""Times critic networks one after the other against one stack of batched matrix products.

    python benchmarks/critic_layout.py [--nets 2] [--batch 256] [--samples 16]

The sizes are two of CVPO: the E-step's evaluation (many actions for each state, no gradients), and a
regression step (one action for each state, forward and backward). The script prints the median processor
time of both layouts over alternating rounds in one process with one thread, and their ratio.
``EnsembleCritic`` uses the separate layout on a processor.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from fsrl_ext.net import EnsembleCritic

OBS, ACT = 8, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nets", type=int, default=2, help="reward critics, and one cost critic")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    critic = EnsembleCritic(OBS, ACT, reward_ensemble=options.nets - 1, cost_ensemble=1)
    obs = torch.randn(options.batch, OBS)
    many = torch.randn(options.batch, options.samples, ACT)
    one = torch.randn(options.batch, ACT)
    rows = torch.cat([obs.repeat_interleave(options.samples, 0), many.flatten(0, 1)], 1)
    inputs = torch.cat([obs, one], 1)

    def evaluate_separate() -> torch.Tensor:
        with torch.no_grad():
            return critic._many_actions(obs, many, None)[..., 0].flatten(1)

    def evaluate_stacked() -> torch.Tensor:
        with torch.no_grad():
            return critic._stacked(rows)[..., 0]

    def fit(run: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        critic.zero_grad()
        values = run(inputs)
        values.square().mean().backward()
        return values

    compare("evaluation", evaluate_separate, evaluate_stacked, options.rounds)
    compare("regression", lambda: fit(critic._networks.run), lambda: fit(critic._stacked), options.rounds)


def compare(
    name: str, separate: Callable[[], torch.Tensor], stacked: Callable[[], torch.Tensor], rounds: int
) -> None:
    torch.testing.assert_close(separate(), stacked(), atol=1e-4, rtol=1e-4)
    times: dict[str, list[float]] = {"separate": [], "stacked": []}
    for _ in range(rounds):
        for layout, call in (("separate", separate), ("stacked", stacked)):
            start = time.process_time()
            call()
            times[layout].append(time.process_time() - start)
    apart, together = (1e3 * statistics.median(times[layout]) for layout in ("separate", "stacked"))
    print(f"{name}: separate {apart:.2f} ms, stacked {together:.2f} ms, ratio {together / apart:.2f}")


if __name__ == "__main__":
    main()
