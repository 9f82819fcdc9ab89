"""Define what `make` promises of every environment, and the classes that keep the promise.

Dimension letters: ``C`` costs.
"""

import math
import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, NoReturn

import gymnasium
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from fsrl_ext.env.cost_reader import ContractError, CostReader, NamedCostReader
from fsrl_ext.env.observations import flat_caster, flat_space, float32_caster, float32_space, unflat_part
from fsrl_ext.errors import check_reset, check_step, checked

CostUnit = Literal["team", "agent"]
"""Whether a task of several agents has one cost, the team's, or one cost for each agent."""


class CostEnv(gymnasium.Env):
    """Makes a simulator an environment with five-tuple steps, float32 observations and a cost on every step.

    A subclass adapts one suite through `_reset` and `_step`. This class also keeps the time limit, so that no
    wrapper is needed; an episode that reaches the limit is `truncated`, never `terminated`.

    :param env_id: name of the task.
    :param observation_space: the simulator's own; boxes become float32.
    :param action_space: the simulator's own.
    :param max_episode_steps: the horizon; None for no limit.
    :param render_mode: one of the class's `metadata["render_modes"]`, or None.
    :param spec: the specification from which `gymnasium.make` builds the same environment again.
    :raises ValueError: the class does not have the `render_mode`.
    """

    def __init__(
        self,
        *,
        env_id: str,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        max_episode_steps: int | None,
        render_mode: str | None,
        spec: EnvSpec | None = None,
    ) -> None:
        modes = self.metadata["render_modes"]
        if render_mode is not None and render_mode not in modes:
            raise ValueError(f"{env_id}: render_mode must be None or one of {modes}, got {render_mode!r}")
        self.env_id = env_id
        self.observation_space = float32_space(observation_space)
        self.action_space = action_space
        self.max_episode_steps = max_episode_steps
        self.render_mode = render_mode
        self.spec = spec
        self._cast = float32_caster(observation_space, env_id)
        self._read_cost: CostReader | NamedCostReader = CostReader(env_id, num_costs=1)
        self._horizon = math.inf if max_episode_steps is None else max_episode_steps
        self._elapsed: int | None = None

    @property
    def cost_names(self) -> tuple[str, ...] | None:
        """Return the names of the costs in `info["cost"]`; None for the sum of all costs."""
        return self._read_cost.names

    def select_costs(self, costs: str | Sequence[str]) -> None:
        """Make `info["cost"]` hold named costs from now on, instead of the sum of all costs.

        :param costs: names ``[C]``, or prefixes; see `fsrl_ext.cost_names.select`.
        :raises ValueError: the task lacks a cost, or two names stand for the same one.
        """
        self._read_cost = NamedCostReader(self.env_id, costs, self._separate_costs())

    def _separate_costs(self) -> Sequence[str]:
        """Return the names of the costs whose sum `info["cost"]` is, without "cost_"; none for most tasks."""
        return ()

    @abstractmethod
    def _reset(self, seed: int | None) -> tuple[Any, dict[str, Any]]:
        """Start an episode and return observation and info; `reset` has seeded `self.np_random` before."""

    @abstractmethod
    def _step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Make one step of the simulator and return a five-tuple with `info["cost"]`."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; the same seed gives the same episode and the same following episodes.

        :param seed: seeds the simulator and the action space; None continues their streams.
        :param options: Gymnasium's argument, which these simulators do not use.
        """
        if seed is not None:  # without a seed, Gymnasium's method does nothing
            super().reset(seed=seed)
            self.action_space.seed(seed)
        observation, info = self._reset(seed)
        self._elapsed = 0
        return self._cast(observation), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Make one step; `info["cost"]` is a float, or float32 ``[C]`` for several named costs.

        :raises gymnasium.error.ResetNeeded: there was no `reset` before.
        :raises CostError: the simulator's cost is missing, or is not one number.
        """
        if self._elapsed is None:
            raise self._reset_needed()
        observation, reward, terminated, truncated, info = self._step(action)
        self._elapsed += 1
        # A new dictionary, because the simulator may keep its own.
        info = {**info, "cost": self._read_cost(info, self._elapsed)}
        truncated = bool(truncated) or self._elapsed >= self._horizon
        return self._cast(observation), float(reward), bool(terminated), truncated, info

    def render(self) -> Any:
        """Return None; environments that can be drawn return a frame in the modes of pictures."""
        return None

    def _reset_needed(self) -> gymnasium.error.ResetNeeded:
        return gymnasium.error.ResetNeeded(f"{self.env_id}: call reset() before step()")


class SimulatorEnv(CostEnv):
    """Is a `CostEnv` whose simulator lives outside of Python's objects, so that it cannot be copied.

    A copy would have a handle to the same simulator: steps of one would move the other.
    """

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Refuse `copy`, `deepcopy` and pickling.

        :raises TypeError: always.
        """
        raise TypeError(
            f"{self.env_id} cannot be copied or pickled, because the copy would share its simulator; build "
            f"another one with make({self.env_id!r}), or pass env_fn({self.env_id!r}) to a vector"
        )


class CostWrapper(gymnasium.Wrapper, gymnasium.utils.RecordConstructorArgs):
    """Keeps the contract around a Gymnasium environment that already has `info["cost"]`.

    Observations of several parts (`Dict`, `Tuple`) become one float32 vector, in the order of
    `gymnasium.wrappers.FlattenObservation`. Images, and observations with an image or another part that is no
    vector of numbers, keep their structure.

    :param env: the environment, with its time limit.
    :param env_id: the environment's name in error messages.
    :param num_costs: the number of costs; None takes it from the first step.
    :param costs: names ``[C]`` of the costs that `info["cost"]` holds after a step, see
        `fsrl_ext.cost_names.select`; None leaves all costs as the environment reports them.
    """

    @checked(at_least_one=("num_costs",))
    def __init__(
        self,
        env: gymnasium.Env,
        *,
        env_id: str,
        num_costs: int | None = None,
        costs: str | Sequence[str] | None = None,
    ) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self, env_id=env_id, num_costs=num_costs, costs=costs)
        gymnasium.Wrapper.__init__(self, env)
        space = env.observation_space
        self.env_id = env_id
        if unflat_part(space) is None:
            self.observation_space = flat_space(space)
            self._cast = flat_caster(space, env_id)
        else:
            self.observation_space = float32_space(space)
            self._cast = float32_caster(space, env_id)
        self._read_cost = CostReader(env_id, num_costs) if costs is None else NamedCostReader(env_id, costs)
        self._elapsed = 0

    @property
    def num_costs(self) -> int | None:
        """Return the number of costs, or None while it is unknown (before the first step)."""
        return self._read_cost.num_costs

    @property
    def cost_names(self) -> tuple[str, ...] | None:
        """Return the names of the costs; None for costs without names, and before the first step."""
        return self._read_cost.names

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment; a seed also seeds its action space.

        :raises ContractError: the environment returned something else than an observation and a dictionary.
        """
        if seed is not None:
            self.action_space.seed(seed)
        answer = self.env.reset(seed=seed, options=options)
        try:
            check_reset(answer)
        except ValueError as error:
            raise ContractError(f"{self.env_id}: {error}") from None
        self._elapsed = 0
        return self._cast(answer[0]), answer[1]

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Make one step; `info["cost"]` is a checked float, or float32 of shape ``[C]`` for several costs.

        :raises ContractError: the environment returned something else than five values, the last of them a
            dictionary.
        :raises CostError: the cost is missing, is no number, or has another length than before.
        """
        answer: Any
        try:
            answer = self.env.step(action)
        except ValueError as error:
            answer = _unpacked_in_vain(error)
            if answer is None:
                raise
        if type(answer) is not tuple or len(answer) != 5 or type(answer[4]) is not dict:
            try:
                check_step(answer)
            except ValueError as error:
                raise ContractError(f"{self.env_id}: {error}") from None
        observation, reward, terminated, truncated, info = answer
        self._elapsed += 1
        # A new dictionary, because the environment may keep its own.
        info = {**info, "cost": self._read_cost(info, self._elapsed)}
        return self._cast(observation), reward, terminated, truncated, info


def _unpacked_in_vain(error: ValueError) -> tuple[None, ...] | None:
    """Return a tuple of as many values as a step had that a wrapper of Gymnasium could not unpack.

    Gymnasium's own wrappers, such as the time limit, see the step before this package does.

    :return: None if the error is another one. Too many values count as six, because that is what other
        packages return.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    match = re.search(r"values to unpack \(expected 5(?:, got (\d))?\)", str(error))
    if match is None or not where.startswith("gymnasium."):
        return None
    return (None,) * int(match.group(1) or 6)
