"""Films the policies that come with the package, in small GIF files for the gallery of the documentation.

    python benchmarks/gallery_films.py     # writes docs/images/ball_circle.gif and car_circle.gif

Each film is the first deterministic episode of the final evaluation. It has a frame every few steps, with a
quarter of the pixels. ``fsrl-ext evaluate zoo:NAME --video FILE`` films every step in full size.
"""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np

from fsrl_ext.env import make
from fsrl_ext.experiment import load_policy
from fsrl_ext.trainer import seed_range

IMAGES = Path(__file__).parents[1] / "docs" / "images"
FILMS = {
    "ball_circle.gif": ("zoo:cvpo-ball-circle", "SafetyBallCircle-v0"),
    "car_circle.gif": ("zoo:cvpo-car-circle", "SafetyCarCircle-v0"),
}
EVERY = 4
"""Steps between two frames."""
SHRINK = 2
"""Of so many rows and columns of pixels one is kept."""
LARGEST = 500_000
"""Bytes that a film may have."""


def film(run: str, task: str) -> tuple[list[np.ndarray], float, float, float]:
    """The frames of an episode, the milliseconds of a frame, and the episode's return and cost."""
    policy = load_policy(run)
    env = make(task, "rgb_array")
    obs, _ = env.reset(seed=seed_range("final", 1)[0])
    frames, done, total, cost, steps = [env.render()], False, 0.0, 0.0, 0
    while not done:
        obs, reward, terminated, truncated, info = env.step(policy.compute_action(obs))
        total, cost, steps, done = total + reward, cost + info["cost"], steps + 1, terminated or truncated
        if steps % EVERY == 0:
            frames.append(env.render())
    milliseconds = 1000 * EVERY / env.metadata["render_fps"]
    env.close()
    return [frame[::SHRINK, ::SHRINK] for frame in frames], milliseconds, total, cost


def main() -> None:
    for name, (run, task) in FILMS.items():
        frames, milliseconds, total, cost = film(run, task)
        imageio.imwrite(IMAGES / name, frames, duration=milliseconds, loop=0)
        size = (IMAGES / name).stat().st_size
        assert size <= LARGEST, f"{name} has {size} bytes"
        print(f"{name}: {len(frames)} frames, {size / 1e3:.0f} kB, return {total:.1f}, cost {cost:.1f}")


if __name__ == "__main__":
    main()
