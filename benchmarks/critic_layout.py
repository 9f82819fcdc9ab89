"""Separate networks one after the other against one stack of batched matrix products, at the E-step's size.

    python benchmarks/critic_layout.py [--nets 4] [--batch 256] [--samples 16]

Prints the median time of each over alternating rounds in one process, one thread, and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from fsrl_ext.net import EnsembleCritic

OBS, ACT, HIDDEN = 8, 2, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nets", type=int, default=4)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    critic = EnsembleCritic(OBS, ACT, reward_ensemble=options.nets - 1, cost_ensemble=1)
    obs = torch.randn(options.batch, OBS)
    act = torch.randn(options.batch, options.samples, ACT)
    first = torch.stack([torch.cat([n.obs_weight, n.act_weight], 1).T for n in critic.nets]).detach()
    biases = [torch.stack([n.bias for n in critic.nets])[:, None].detach()]
    weights = [first]
    for layers in zip(*(n.layers for n in critic.nets), strict=True):
        weights.append(torch.stack([x.weight.T for x in layers]).detach())
        biases.append(torch.stack([x.bias for x in layers])[:, None].detach())

    def stacked() -> torch.Tensor:
        rows = torch.cat([obs[:, None].expand(-1, options.samples, -1), act], -1).flatten(0, 1)
        hidden = rows.expand(options.nets, -1, -1)
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden.relu_() if i else hidden, weight)
        return hidden.view(options.nets, options.batch, options.samples)

    with torch.no_grad():
        q = critic(obs, act)
        torch.testing.assert_close(stacked(), torch.cat([q.reward, q.cost[0]]), atol=1e-4, rtol=1e-4)
        times: dict[str, list[float]] = {"separate": [], "stacked": []}
        for _ in range(options.rounds):
            for name, call in (("separate", lambda: critic(obs, act)), ("stacked", stacked)):
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:9} {1e3 * median:.2f} ms")
    print(f"ratio     {medians['stacked'] / medians['separate']:.2f}")


if __name__ == "__main__":
    main()
