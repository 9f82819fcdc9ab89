"""Compares ways to draw the E-step's actions: errors of the weights' moments and of the actor's gradient.

    python benchmarks/estep_samples.py RUN [RUN ...]

For each run folder of CVPO, the script plays sampled episodes, takes batches of 256 visited states, and solves
the E-step with the run's target critics. The reference draws 4,096 actions in each state. Every scheme is
repeated with fresh random numbers; the script prints

- the error of the actor's gradient, root mean square over the repetitions, relative to the gradient's norm;
- the part of that error that stays in the mean over the repetitions (bias), likewise;
- the mean temperature and the mean of the multiplier, relative to the reference.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import fsrl_ext.experiment  # noqa: F401
from fsrl_ext.env import make
from fsrl_ext.experiment.saved.load import load_experiment
from fsrl_ext.functional.estep import solve_dual
from fsrl_ext.functional.mstep import weighted_moments

BATCH = 256


def sobol(dim: int, count: int) -> Tensor:
    return torch.quasirandom.SobolEngine(dim).draw(count).double()


def iid(batch: int, n: int, dim: int) -> Tensor:
    return torch.randn(batch, n, dim)


def antithetic(batch: int, n: int, dim: int) -> Tensor:
    half = torch.randn(batch, n // 2, dim)
    return torch.cat([half, -half], 1)


def shifted(points: Tensor, batch: int, one: bool = False) -> Tensor:
    shift = torch.rand(1 if one else batch, 1, points.shape[-1])
    uniform = (points.float() + shift).remainder(1.0).clamp(1e-6, 1 - 1e-6)
    return np.sqrt(2.0) * torch.erfinv(2.0 * uniform - 1.0).expand(batch, -1, -1)


def shifted_sobol(batch: int, n: int, dim: int) -> Tensor:
    return shifted(sobol(dim, n), batch)


def shifted_sobol_antithetic(batch: int, n: int, dim: int) -> Tensor:
    half = shifted(sobol(dim, n // 2), batch)
    return torch.cat([half, -half], 1)


def lattice(batch: int, n: int, dim: int) -> Tensor:
    # Korobov-like: R_d sequence (generalised golden ratio)
    phi = 2.0
    for _ in range(50):
        phi = (1 + phi) ** (1.0 / (dim + 1))
    alpha = torch.tensor([phi ** -(k + 1) for k in range(dim)], dtype=torch.float64)
    pts = (torch.arange(n, dtype=torch.float64)[:, None] * alpha).remainder(1.0)
    return shifted(pts, batch)


def latin(batch: int, n: int, dim: int) -> Tensor:
    order = torch.rand(batch, n, dim).argsort(1)
    uniform = ((order + torch.rand(batch, n, dim)) / n).clamp(1e-6, 1 - 1e-6)
    return np.sqrt(2.0) * torch.erfinv(2.0 * uniform - 1.0)


def orthogonal(batch: int, n: int, dim: int) -> Tensor:
    """Antithetic directions from random orthogonal blocks with chi radii."""
    out = []
    left = n // 2
    while left > 0:
        q, _ = torch.linalg.qr(torch.randn(batch, dim, dim))
        k = min(left, dim)
        radii = torch.randn(batch, k, dim).norm(dim=-1, keepdim=True)
        out.append(q[:, :k] * radii)
        left -= k
    half = torch.cat(out, 1)
    return torch.cat([half, -half], 1)


def matched(base: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Scales to unit second moments per dimension."""

    def draw(batch: int, n: int, dim: int) -> Tensor:
        z = base(batch, n, dim)
        z = z - z.mean(1, keepdim=True)
        return z / z.square().mean(1, keepdim=True).sqrt()

    return draw


SCHEMES = {
    "iid 16": (iid, 16, 0),
    "iid 16 cv": (iid, 16, 1),
    "iid 8 cv": (iid, 8, 1),
    "antithetic 8 cv": (antithetic, 8, 1),
    "sobol 8": (shifted_sobol, 8, 0),
    "sobol 8 cv": (shifted_sobol, 8, 1),
    "sobol 6 cv": (shifted_sobol, 6, 1),
    "sobol 4 cv": (shifted_sobol, 4, 1),
    "sobol anti 8": (shifted_sobol_antithetic, 8, 0),
    "sobol anti 8 cv": (shifted_sobol_antithetic, 8, 1),
    "latin 8": (latin, 8, 0),
    "latin 8 cv": (latin, 8, 1),
    "latin 6 cv": (latin, 6, 1),
    "orthogonal 8": (orthogonal, 8, 0),
    "orthogonal 8 cv": (orthogonal, 8, 1),
}


def states(policy, config, spec) -> Tensor:
    env = make(config.env_id) if hasattr(config, "env_id") else make(config.task)
    rows = []
    for seed in range(12):
        obs, _ = env.reset(seed=seed)
        done = False
        while not done:
            rows.append(obs)
            mean, scale = policy.actor(policy.data.observations(torch.as_tensor(obs[None], dtype=torch.float32)))[0]
            act = (mean + scale * torch.randn_like(mean)).clamp(-1, 1)[0].detach().numpy()
            low, high = env.action_space.low, env.action_space.high
            obs, *_, term, trunc, _ = env.step(low + (act + 1) / 2 * (high - low))
            done = term or trunc
    return torch.as_tensor(np.array(rows), dtype=torch.float32)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--repeats", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for run in options.runs:
        policy, config, spec = load_experiment(run)
        torch.manual_seed(0)
        pool = policy.data.observations(states(policy, config, spec))
        obs = pool[torch.randperm(len(pool))[:BATCH]]
        with torch.no_grad():
            mean, scale = policy.old_actor(obs)[0]
        print(run, "std", scale.mean(0).numpy().round(3))

        def solve(noise: Tensor):
            actions = mean[:, None] + noise * scale[:, None]
            with torch.no_grad():
                qr, qc = policy._reduce(policy.target_critic(obs, policy._executed(actions)))
            return actions, qr, qc

        _, _, qc0 = solve(torch.randn(BATCH, 64, mean.shape[1]))
        threshold = qc0.mean((1, 2), dtype=torch.float64) - options_slack(qc0)

        def gradient(noise: Tensor, cv=0):
            actions, qr, qc = solve(noise)
            thr = qc.mean((1, 2), dtype=torch.float64) - options_slack(qc0)
            s = solve_dual(qr, qc, kl_bound=policy.config.kl_bound, cost_threshold=thr)
            m = weighted_moments(s.weights, actions, mean, scale)
            first, second = m.first, m.second
            if cv:
                d = actions - mean[:, None]
                first = first - d.mean(1)
                second = second - d.square().mean(1) + scale**2
            gm = -first / scale**2 / BATCH
            gs = (1 - second / scale**2) / (BATCH * scale)
            out = policy.actor(obs)[0]
            ps = list(policy.actor.parameters())
            # two gradients: via mean and via scale
            a = torch.autograd.grad(out, ps, (gm, torch.zeros_like(gs)), allow_unused=True, retain_graph=True)
            b = torch.autograd.grad(out, ps, (torch.zeros_like(gm), gs), allow_unused=True)
            f = lambda g: torch.cat([x.flatten() for x in g if x is not None])
            w = s.weights
            return f(a), f(b), s.temperature, float(s.multipliers[0]), s.status

        ref = [gradient(torch.randn(BATCH, 4096, mean.shape[1])) for _ in range(2)]
        ga, gb = ref[0][0], ref[0][1]
        print("reference eta", ref[0][2], "lambda", ref[0][3], ref[0][4],
              "own error", float((ref[1][0] - ga).norm() / ga.norm()), float((ref[1][1] - gb).norm() / gb.norm()))
        # noise of batches
        for name, (scheme, n, cv) in SCHEMES.items():
            ea, eb, es, ls = [], [], [], []
            for _ in range(options.repeats):
                a, b, eta, lam, _ = gradient(scheme(BATCH, n, mean.shape[1]), cv)
                ea.append(a - ga)
                eb.append(b - gb)
                es.append(eta)
                ls.append(lam)
            ea, eb = torch.stack(ea), torch.stack(eb)
            r = lambda e, g: float(e.square().sum(1).mean().sqrt() / g.norm())
            bias = lambda e, g: float(e.mean(0).norm() / g.norm())
            print(f"{name:22s} mean-grad rms {r(ea, ga):.3f} bias {bias(ea, ga):.3f}   scale-grad rms {r(eb, gb):.3f} "
                  f"bias {bias(eb, gb):.3f}  eta {np.mean(es)/ref[0][2]:.3f}+-{np.std(es)/ref[0][2]:.3f} lambda {np.mean(ls)/max(ref[0][3],1e-9):.3f}+-{np.std(ls)/max(ref[0][3],1e-9):.3f}", flush=True)


def options_slack(qc0: Tensor) -> Tensor:
    return 0.2 * qc0.mean((0,)).std(-1).mean().double()


main()
