"""Adapt safety-gymnasium's robots whose joints are divided among agents.

The package has a constructor of robot and division instead of ids. It gives every agent the reward and the
cost of the whole robot: a cost of 1 on each step above the speed limit.
"""

from typing import Any

from pettingzoo import ParallelEnv

from fsrl_ext.env.agents.contract import ParallelCostEnv
from fsrl_ext.env.display import require_display, require_offscreen_gl
from fsrl_ext.env.quiet import quiet
from fsrl_ext.env.safety_gymnasium.importing import import_safety_gymnasium
from fsrl_ext.env.safety_gymnasium.viewers import close_viewers, draw_in_own_context
from fsrl_ext.env.suite_tasks import DIVIDED_ROBOTS


class DividedRobot(ParallelEnv):
    """Gives the package's environment the steps and infos of a `ParallelEnv`.

    :param simulator: the package's `SafeMAEnv`, whose step returns six dictionaries.
    :param name: of the task.
    :param render_mode: "human", "rgb_array", "depth_array" or None.
    """

    def __init__(self, simulator: Any, *, name: str, render_mode: str | None) -> None:
        self.simulator = simulator
        self.render_mode = render_mode
        robot = simulator.single_agent_env.unwrapped
        self._renderer = robot.mujoco_renderer
        draw_in_own_context(self._renderer)
        self.metadata = {
            **robot.metadata,
            "name": name,
            "is_parallelizable": True,
            "shared_cost": True,
            "shared_reward": True,
        }
        self.possible_agents = list(simulator.possible_agents)
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> Any:
        """Return the space of what an agent sees: its own joints, those next to them, and the torso."""
        return self.simulator.observation_space(agent)

    def action_space(self, agent: str) -> Any:
        """Return the space of an agent's torques."""
        return self.simulator.action_space(agent)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start an episode; the package has no options."""
        observations, infos = self.simulator.reset(seed=seed)
        self.agents = list(self.possible_agents)
        return observations, infos

    def step(self, actions: dict[str, Any]) -> Any:
        """Make one step; every agent's info has the cost of the robot."""
        observations, rewards, costs, terminations, truncations, infos = self.simulator.step(actions)
        # The package hands the same dictionary to all agents.
        infos = {name: {**infos[name], "cost": costs[name]} for name in self.possible_agents}
        self.agents = [x for x in self.possible_agents if not (terminations[x] or truncations[x])]
        return observations, rewards, terminations, truncations, infos

    def render(self) -> Any:
        """Return a frame in mode "rgb_array"."""
        return self.simulator.render()

    def state(self) -> Any:
        """Return the observation of the whole robot."""
        return self.simulator.state()

    def close(self) -> None:
        """Close the viewers; a second call does nothing."""
        close_viewers(self._renderer)


def make_divided_robot(
    env_id: str, *, render_mode: str | None, max_episode_steps: int | None, **kwargs: Any
) -> ParallelCostEnv:
    """Build one of the tasks of `DIVIDED_ROBOTS`.

    :param kwargs: passed to the package's constructor, for example `agent_obsk=0`, with which an agent sees
        its own joints alone.
    :raises RuntimeError: `render_mode` needs a display or OpenGL, and there is none.
    """
    if render_mode == "human":
        require_display(env_id)
    elif render_mode is not None:
        require_offscreen_gl(env_id)
    import_safety_gymnasium()
    robot, division = DIVIDED_ROBOTS[env_id]
    with quiet():
        from safety_gymnasium.tasks.safe_multi_agent.safe_mujoco_multi import SafeMAEnv

        simulator = SafeMAEnv(
            robot,
            division,
            render_mode=render_mode,
            # The limit is kept here; the package's constructor takes the registered one.
            max_episode_steps=max_episode_steps,
            disable_env_checker=True,
            **kwargs,
        )
    env = DividedRobot(simulator, name=env_id, render_mode=render_mode)
    return ParallelCostEnv(env, env_id=env_id, max_episode_steps=max_episode_steps)
