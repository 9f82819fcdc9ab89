"""Films saved policies, or shows them in a window."""

from __future__ import annotations

import contextlib
import gc
import os
import secrets
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from tianshou.policy import BasePolicy

from fsrl_ext.data.action_boxes import ActionSpaces
from fsrl_ext.data.randomness import private_randomness
from fsrl_ext.env.display import has_display
from fsrl_ext.env.meta import TaskDescription
from fsrl_ext.env.suite_tasks import META, SAFETY, SUITE_TASKS
from fsrl_ext.errors import checked
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.saved.chosen_task import ChosenTask, other_task
from fsrl_ext.experiment.saved.load import episode_seeds, load_saved, torch_threads
from fsrl_ext.experiment.training.permission import check_import
from fsrl_ext.policy import EpisodeActor
from fsrl_ext.report.files import check_new_file
from fsrl_ext.report.folder import Which, checkpoint_file
from fsrl_ext.trainer.progress import progress

VIDEO_SUFFIXES = (".mp4", ".gif")


@checked(at_least_one=("episodes",), seed=("seed",), own=("task_seed", "checkpoint"))
def record_video(
    run: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    task: str | TaskDescription | None = None,
    task_seed: int | None = None,
    episodes: int = 1,
    seed: int | None = None,
    checkpoint: Which = "best",
    device: str | None = None,
    allow_import: bool = False,
    show_progress: bool = False,
) -> list[dict[str, Any]]:
    """Films a saved policy's deterministic episodes, at the frame rate that the environment states (or 30).

    :param path: a new ``.mp4`` or ``.gif`` file; it appears when it is complete.
    :param show_progress: whether to show on a terminal how many episodes were filmed.
    :return: ``seed``, ``return``, ``cost`` (one number per cost) and ``frames`` of each episode.
    :raises CheckpointError: if there is no usable checkpoint.
    :raises ValueError: if the path cannot be used, the task does not fit or cannot be drawn.
    :raises ImportError: if a package for writing videos is missing.

    The other parameters are those of :func:`evaluate`.
    """
    check_drawing(video=path, episodes=episodes)
    path, seeds, chosen = Path(path), episode_seeds(episodes, seed), other_task(task, task_seed)
    policy, config, chosen = _load(
        checkpoint_file(run, checkpoint), device, chosen, allow_import=allow_import
    )
    env = _make_drawing(chosen, "rgb_array", config.training.env_arguments)
    # A name that nobody can have put a link at before.
    unfinished = path.with_name(f".{path.stem}.{secrets.token_hex(8)}{path.suffix}")
    try:
        with (
            torch_threads(config.threads),
            private_randomness(seeds[0]),
            _video_writer(unfinished, _frames_per_second(env)) as write,
        ):
            filmed = progress(seeds, "film", total=episodes, show=show_progress)
            played = [_play(policy, env, s, lambda: write(_frame(env, chosen.id))) for s in filmed]
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
        env.close()
    return played


@checked(at_least_one=("episodes",), seed=("seed",), own=("task_seed", "checkpoint"))
def show(
    run: str | os.PathLike[str],
    *,
    task: str | TaskDescription | None = None,
    task_seed: int | None = None,
    episodes: int = 1,
    seed: int | None = None,
    checkpoint: Which = "best",
    device: str | None = None,
    allow_import: bool = False,
) -> list[dict[str, Any]]:
    """Plays a saved policy's deterministic episodes in a window.

    Parameters and errors are those of :func:`record_video`.
    """
    check_drawing(window=True, episodes=episodes)
    seeds, chosen = episode_seeds(episodes, seed), other_task(task, task_seed)
    policy, config, chosen = _load(
        checkpoint_file(run, checkpoint), device, chosen, allow_import=allow_import
    )
    env = _make_drawing(chosen, "human", config.training.env_arguments)
    pause, due = 1 / _frames_per_second(env), time.perf_counter()

    def wait() -> None:  # for an environment that keeps the time itself, the next step is due already
        nonlocal due
        due = max(due + pause, time.perf_counter())
        time.sleep(max(due - time.perf_counter(), 0.0))

    try:
        with torch_threads(config.threads), private_randomness(seeds[0]):
            return [_play(policy, env, s, wait) for s in seeds]
    finally:
        env.close()


def check_drawing(
    *, video: str | os.PathLike[str] | None = None, window: bool = False, episodes: int = 1
) -> None:
    """Checks what can be known before a policy is loaded: the file, the packages, the display.

    :raises ValueError: naming what cannot be used.
    :raises ImportError: with the command that installs what is missing.
    """
    if episodes < 1:
        raise ValueError(f"video_episodes must be a whole number >= 1, got {episodes}")
    if window and not has_display():
        raise ValueError("render='human' opens a window, and DISPLAY is not set; use a video instead")
    if video is not None:
        _require_video_packages(check_new_file(video, VIDEO_SUFFIXES))


def _play(policy: BasePolicy, env: gym.Env, seed: int, after_step: Callable[[], None]) -> dict[str, Any]:
    """Plays one episode; ``after_step`` is called after the reset, too."""
    obs, _ = env.reset(seed=seed)
    spaces, act = ActionSpaces([env.action_space]), EpisodeActor(policy)
    total, cost, steps, done = 0.0, np.zeros(1), 0, False
    after_step()
    while not done:
        actions = np.reshape(act(obs), (1, *(env.action_space.shape or ())))
        # A policy saved by an earlier version may act in float32 where the environment has float64.
        obs, reward, terminated, truncated, info = env.step(spaces.fit(actions, np.arange(1))[0])
        total, cost, steps = total + float(reward), cost + info["cost"], steps + 1
        done = terminated or truncated
        after_step()
    return {"seed": int(seed), "return": total, "cost": cost.tolist(), "frames": steps + 1}


def _load(
    file: Path, device: str | None, chosen: ChosenTask | None, *, allow_import: bool
) -> tuple[BasePolicy, ExperimentConfig, ChosenTask]:
    """A saved policy, its config, and the task that it is to play: its own, if no other is chosen."""
    policy, config, spec = load_saved(file, device, allow_import=allow_import)
    if chosen is None:
        check_import(config.env_id, file, allow_import=allow_import)
        return policy, config, ChosenTask(config.env_id, costs=config.costs)
    chosen = chosen.with_costs_of(config)
    chosen.check(spec, config, config.cost_limit)
    return policy, config, chosen


def _camera(task: str) -> dict[str, Any]:
    """Arguments of ``make`` that show a whole task; navigation tasks look out of the robot otherwise."""
    info = SUITE_TASKS.get(task)
    if info is None or info.suite not in (SAFETY, META) or "Velocity" in task:
        return {}
    return {"camera_name": "fixedfar", "width": 480, "height": 480}


def _make_drawing(task: ChosenTask, mode: str, arguments: Mapping[str, Any]) -> gym.Env:
    """Makes an environment, and draws a frame of a film on trial, because OpenGL starts with the first one.

    :param arguments: of the environment in training.
    :raises ValueError: if there is no display or no OpenGL, or the environment has no such mode.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Gymnasium warns about the mode that is refused below
            env = task.make(mode, **arguments, **_camera(task.id))
    except (RuntimeError, TypeError, AttributeError, gym.error.Error) as error:
        raise ValueError(_why_not_drawn(task, error)) from error
    if env.render_mode != mode:
        env.close()
        raise ValueError(f"{task.id} cannot be drawn: it has no render_mode {mode!r}")
    if mode == "rgb_array":
        gc.collect()  # viewers of earlier films must not take this one's OpenGL context with them
        try:
            env.reset(seed=0)
            env.render()
        except Exception as error:  # every OpenGL library has errors of its own
            with contextlib.suppress(Exception):  # a viewer that was made in part fails to close
                env.close()
            raise ValueError(_why_not_drawn(task, error)) from error
    return env


def _why_not_drawn(task: ChosenTask, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    backend = os.environ.get("MUJOCO_GL")
    hint = f" (MUJOCO_GL is {backend!r}; egl and osmesa draw without a display)" if backend else ""
    return f"{task.id} cannot be drawn: {reason}{hint}"


def _frames_per_second(env: gym.Env) -> float:
    return float(env.metadata.get("render_fps") or 30)


def _frame(env: gym.Env, task: str) -> np.ndarray:
    """``[height, width, 3]`` uint8 with even sides, as the codec needs them."""
    frame = np.asarray(env.render())
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"{task} cannot be filmed: a frame has the shape {list(frame.shape)}")
    height, width = frame.shape[:2]
    return frame[: height - height % 2, : width - width % 2].astype(np.uint8)


def _require_video_packages(path: Path) -> None:
    """:raises ImportError: with the command that installs what is missing."""
    try:
        import imageio.v2  # noqa: F401

        if path.suffix.lower() == ".mp4":
            import imageio_ffmpeg

            imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise ImportError(
            "videos need imageio and, for .mp4, imageio-ffmpeg with its ffmpeg; "
            "install them: pip install imageio imageio-ffmpeg"
        ) from error


@contextlib.contextmanager
def _video_writer(path: Path, frames_per_second: float) -> Iterator[Callable[[np.ndarray], None]]:
    import imageio.v2

    if path.suffix.lower() == ".gif":
        # A GIF counts its frames' time in hundredths of a second.
        options: dict[str, Any] = {"duration": 10 * max(1, round(100 / frames_per_second)), "loop": 0}
    else:
        options = {"fps": frames_per_second, "codec": "libx264", "macro_block_size": 2}
    writer: Any = imageio.v2.get_writer(path, mode="I", **options)
    with writer:
        yield writer.append_data
