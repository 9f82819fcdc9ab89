"""Checks that navigation and velocity tasks equal the stock safety-gymnasium package, bit for bit.

    python benchmarks/environment_equality.py --missing --jobs 2       # every task: over an hour of one core
    python benchmarks/environment_equality.py SafetyPointGoal1-v0 --seeds 3

For every task and seed, the script plays whole episodes with random actions and with scripted actions. The
scripted episodes put the agent beside an object every 20 steps, another object each time, and then drive it,
so that buttons are pressed, boxes pushed, gremlins and vases hit and goals reached, whatever the agent can
do. The stock package and ours get the same actions. After each step the script compares the observation (as
float32, and in full), reward, cost, the ends of the episode and every entry of `info`; where it finds an
OpenGL, it also compares camera images. The result counts what happened, so a task in which nothing was hit
shows as such. Results go to `benchmarks/results/environment_equality.json` after every task, and `--missing`
continues from there. The exit status is 1 if anything differs.
"""

import argparse
import pathlib
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

import numpy as np

from fsrl_ext.env import list_tasks, make, time_limit
from fsrl_ext.env.display import require_offscreen_gl
from fsrl_ext.env.safety_gymnasium.importing import import_safety_gymnasium
from fsrl_ext.report.files import read_json, write_json

RESULTS = pathlib.Path(__file__).parent / "results" / "environment_equality.json"
AGENTS = ("Point", "Car", "Racecar", "Doggo", "Ant")
NAVIGATION = (
    *("Goal0", "Goal1", "Goal2", "Button0", "Button1", "Button2", "Push0", "Push1", "Push2"),
    *("Circle0", "Circle1", "Circle2", "Run0"),
)
MODES = ("random", "script")
_OBJECTS = ("goal", "button", "hazard", "vase", "pillar", "push_box", "gremlin")
_MOVED_EVERY = 20  # steps

# One step is observation, reward, cost, terminated, truncated, info.
Step = tuple[np.ndarray, float, float, bool, bool, dict[str, float]]


def all_tasks() -> list[str]:
    """Returns the ids of every navigation task and velocity task."""
    velocity = [task.id for task in list_tasks() if "Velocity" in task.id and task.num_agents == 1]
    return [f"Safety{agent}{task}-v0" for task in NAVIGATION for agent in AGENTS] + velocity


def _numbers(info: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in info.items()}


def stock_step(env: Any, action: np.ndarray) -> Step:
    observation, reward, cost, terminated, truncated, info = env.step(action)
    return (
        np.array(observation),
        float(reward),
        float(cost),
        bool(terminated),
        bool(truncated),
        _numbers(info),
    )


def our_step(env: Any, action: np.ndarray) -> Step:
    observation, reward, terminated, truncated, info = env.step(action)
    numbers = _numbers(info)
    numbers.pop("cost")  # the package returns the cost apart
    return np.array(observation), float(reward), float(info["cost"]), terminated, truncated, numbers


def put_beside_an_object(task: Any, rng: np.random.Generator) -> None:
    """Moves the agent to one of the task's objects, whether the agent could get there or not."""
    import mujoco

    model, data = task.model, task.data
    names = [model.body(i).name for i in range(model.nbody)]
    objects = [name for name in names if name.startswith(_OBJECTS) and not name.endswith("mocap")]
    target = data.body(objects[rng.integers(len(objects))]).xpos[:2] if objects else np.zeros(2)
    place = target + rng.uniform(-0.25, 0.25, 2)
    agent = model.body("agent")
    if model.jnt_type[agent.jntadr[0]] != mujoco.mjtJoint.mjJNT_FREE:  # slides along its first axes
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, agent.quat.copy())
        place = ((place - agent.pos[:2]) @ rotation.reshape(3, 3)[:2])[:2]
    data.qpos[:2] = place


def episodes(
    env: Any,
    step: Callable[[Any, np.ndarray], Step],
    task: Callable[[], Any] | None,
    *,
    mode: str,
    seed: int,
    count: int,
    steps: int,
) -> list[Step]:
    """Plays some episodes; the first reset is seeded, and later resets continue its random stream.

    :param task: the safety-gymnasium task, for the script.
    :param steps: largest number of steps of an episode.
    """
    rng = np.random.default_rng(seed + 100)
    low, high = env.action_space.low, env.action_space.high
    seen: list[Step] = []
    for number in range(count):
        observation, _ = env.reset(seed=seed if number == 0 else None)
        seen.append((np.array(observation), 0.0, 0.0, False, False, {}))
        for at in range(steps):
            action = rng.uniform(low, high)
            if mode == "script" and task is not None:
                if at % _MOVED_EVERY == 0:
                    put_beside_an_object(task(), rng)
                if at // _MOVED_EVERY % 2:
                    action = 0.5 * (action + high)
            seen.append(step(env, action))
            if seen[-1][3] or seen[-1][4]:
                break
    return seen


def difference(stock: list[Step], ours: list[Step]) -> str | None:
    """Returns what differs first, or None; observations of either dtype are compared as float32."""
    for at, (a, b) in enumerate(zip(stock, ours, strict=False)):
        if not np.array_equal(a[0].astype(np.float32), b[0].astype(np.float32)):
            return f"observation {at} by {np.abs(a[0] - b[0]).max():.3g}"
        if a[1:] != b[1:]:
            return f"step {at}: {a[1:]} and {b[1:]}"
    return None if len(stock) == len(ours) else f"{len(stock)} and {len(ours)} steps"


def compare(task: str, *, mode: str, seed: int, count: int, steps: int | None = None) -> dict[str, Any]:
    """Plays both packages; returns what differs, and how often each cost was above zero."""
    stock, ours = import_safety_gymnasium().make(task), make(task)
    navigation = hasattr(ours, "simulator") and hasattr(ours.simulator, "task")
    most: int = steps or time_limit(ours) or 1000
    common: dict[str, Any] = {"mode": mode, "seed": seed, "count": count, "steps": most}
    theirs = episodes(stock, stock_step, (lambda: stock.unwrapped.task) if navigation else None, **common)
    mine = episodes(ours, our_step, (lambda: ours.simulator.task) if navigation else None, **common)
    ours.close()
    happened = Counter(name for step in mine for name, value in step[5].items() if value > 0)
    return {
        "task": task,
        "mode": mode,
        "seed": seed,
        "steps": len(mine),
        "difference": difference(theirs, mine),
        "happened": {
            name: n for name, n in sorted(happened.items()) if "cost_" in name or name == "goal_met"
        },
    }


def compare_images(task: str, seed: int = 0) -> dict[str, Any]:
    """Compares camera images over the first steps of two episodes with the stock package's."""
    stock = import_safety_gymnasium().make(task, render_mode="rgb_array")
    ours = make(task, render_mode="rgb_array")
    differ, frames = 0, 0
    for number in range(4):  # the model is written into from the third reset on
        for env in (stock, ours):
            env.reset(seed=seed if number == 0 else None)
        for _ in range(3):
            action = np.random.default_rng(frames).uniform(ours.action_space.low, ours.action_space.high)
            stock.step(action)
            ours.step(action)
            frames += 1
            differ += not np.array_equal(stock.render(), ours.render())
    ours.close()
    result = f"{differ} of {frames} images" if differ else None
    return {
        "task": task,
        "mode": "images",
        "seed": seed,
        "steps": frames,
        "difference": result,
        "happened": {},
    }


def images_can_be_compared() -> bool:
    """Returns whether MuJoCo can draw here, and prints why it cannot."""
    try:
        require_offscreen_gl("images")
    except RuntimeError as error:
        print(f"images are not compared: {error}")
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", help="task ids (default: all)")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--episodes", type=int, default=3, help="episodes per seed and mode")
    parser.add_argument("--steps", type=int, help="largest number of steps of an episode (default: no bound)")
    parser.add_argument("--no-images", action="store_true")
    parser.add_argument("--missing", action="store_true", help="only tasks without results of all seeds")
    parser.add_argument("--jobs", type=int, default=1, help="tasks at once, each in a process of its own")
    options = parser.parse_args()
    known = read_json(RESULTS) if RESULTS.exists() else []
    results = {(r["task"], r["mode"], r["seed"]): r for r in known}
    images = not options.no_images and images_can_be_compared()
    tasks = options.tasks or all_tasks()
    if options.missing:
        tasks = [
            x for x in tasks if any(key not in results for key in rows_of(x, options.seeds, images=images))
        ]
    limits = {"count": options.episodes, "steps": options.steps}
    failed = 0
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        running = {pool.submit(compare_all, x, options.seeds, images=images, **limits): x for x in tasks}
        for done in as_completed(running):
            rows, seconds = done.result()
            results.update({(r["task"], r["mode"], r["seed"]): r for r in rows})
            wrong = [r for r in rows if r["difference"]]
            failed += len(wrong)
            happened = sum((Counter(r["happened"]) for r in rows), Counter())
            verdict = "identical" if not wrong else f"DIFFERENT: {[r['difference'] for r in wrong]}"
            steps = sum(r["steps"] for r in rows)
            print(
                f"{running[done]:26s} {steps:6d} steps {seconds:4.0f} s  {verdict}  {dict(happened)}",
                flush=True,
            )
            RESULTS.parent.mkdir(exist_ok=True)
            write_json(RESULTS, [results[key] for key in sorted(results)], indent=1)
    return 1 if failed else 0


def rows_of(task: str, seeds: int, *, images: bool) -> list[tuple[str, str, int]]:
    """Returns task, mode and seed of all comparisons of a task."""
    modes = MODES if "Velocity" not in task else MODES[:1]
    rows = [(task, mode, seed) for seed in range(seeds) for mode in modes]
    return [*rows, (task, "images", 0)] if images and "Velocity" not in task else rows


def compare_all(task: str, seeds: int, *, images: bool, **limits: Any) -> tuple[list[dict[str, Any]], float]:
    """Returns the results of all comparisons of a task, and the seconds that they took."""
    start = time.perf_counter()
    results = [
        compare_images(task) if mode == "images" else compare(task, mode=mode, seed=seed, **limits)
        for _, mode, seed in rows_of(task, seeds, images=images)
    ]
    return results, time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
