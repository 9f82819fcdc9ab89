"""Let an action last for several steps of an environment."""

from typing import Any

import gymnasium

from fsrl_ext.errors import checked


class ActionRepeat(gymnasium.Wrapper, gymnasium.utils.RecordConstructorArgs):
    """Repeats each action for several steps of an environment with costs, or until the episode ends.

    A step of the wrapper is a decision. Its reward and its cost are the sums over the repeated steps, and its
    observation and other infos are those of the last of them. The return and the cost of an episode are those
    of the environment itself.

    :param env: an environment that keeps the contract of `fsrl_ext.env.make`.
    :param repeat: the number of steps of a decision, >= 1.
    """

    @checked(at_least_one=("repeat",))
    def __init__(self, env: gymnasium.Env, repeat: int) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self, repeat=repeat)
        gymnasium.Wrapper.__init__(self, env)
        self.repeat = repeat
        if env.metadata.get("render_fps"):  # a frame for each decision
            self.metadata = {**env.metadata, "render_fps": env.metadata["render_fps"] / repeat}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Make one decision; `info["cost"]` is the sum of the costs of its steps."""
        reward: Any
        observation, reward, terminated, truncated, info = self.env.step(action)
        cost = info["cost"]
        for _ in range(self.repeat - 1):
            if terminated or truncated:
                break
            observation, more, terminated, truncated, info = self.env.step(action)
            reward, cost = reward + more, cost + info["cost"]
        return observation, reward, terminated, truncated, {**info, "cost": cost}
