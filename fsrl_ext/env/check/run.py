"""Make all checks of an environment."""

import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium

from fsrl_ext.env.builders import env_fn
from fsrl_ext.env.check.drawing import check_drawing
from fsrl_ext.env.check.episodes import Row, rows
from fsrl_ext.env.check.findings import CheckFailedError, Finding, SkippedError, raised
from fsrl_ext.env.check.repetition import (
    STEPS,
    check_process,
    check_replay,
    check_seeds,
    check_vector,
)
from fsrl_ext.env.check.spaces import check_action_space, check_bounds, check_observation_space
from fsrl_ext.env.check.steps import check_costs, check_ends, check_reset, check_step
from fsrl_ext.env.contract import CostEnv, CostWrapper
from fsrl_ext.env.registry import SuiteNotInstalledError, make_joint
from fsrl_ext.env.tasks import UnknownTaskError, can_terminate
from fsrl_ext.errors import checked


@checked(seed=("seed",), at_least_one=("max_steps",))
def check_env(
    task: str | Any,
    *,
    seed: int = 0,
    costs: str | Sequence[str] | None = None,
    workers: bool = True,
    max_steps: int = 5_000,
) -> list[Finding]:
    """Check whether an environment keeps the contract of this package; see docs/your_own_environment.md.

    The checks are of spaces, resets, steps, costs, bounds of actions, the time limit, render modes, seeds,
    several environments in one process and in processes of their own, and whether episodes can be replayed,
    as resuming a run needs it. A check that needs one that failed is skipped.

    :param task: an id as for `make`, "module:id" and "module:function" included, or an environment: a
        `gymnasium.Env` or a `pettingzoo.ParallelEnv`. The checks that build further environments are skipped
        for the latter two.
    :param seed: of the resets and of the random actions.
    :param costs: the names of costs, as for `make`.
    :param workers: start two processes, spawned and forked, that play the environment.
    :param max_steps: the most steps of the two episodes by which the time limit is checked.
    :return: one finding for each check, in order. The environment is well if no status is "fails".
    :raises UnknownTaskError: no task has the id.
    :raises ImportError: the module before the colon cannot be imported, or the suite is not installed.
    """
    findings: list[Finding] = []
    try:
        env = _built(task, costs)
    except CheckFailedError as failure:
        return [_failed("built", failure)]
    try:
        _Checks(env, task if isinstance(task, str) else None, seed, costs, findings).make(workers, max_steps)
    finally:
        if isinstance(task, str):
            env.close()
    return findings


class _Checks:
    """Makes the checks of one environment and notes what they say."""

    def __init__(
        self,
        env: gymnasium.Env,
        id: str | None,
        seed: int,
        costs: str | Sequence[str] | None,
        findings: list[Finding],
    ) -> None:
        self.env, self.id, self.seed, self.findings = env, id, seed, findings
        self.arguments: dict[str, Any] = {} if costs is None else {"costs": costs}

    def make(self, workers: bool, max_steps: int) -> None:
        """Make all checks, in order."""
        env, seed = self.env, self.seed
        modes = env.metadata.get("render_modes", [])
        ends_early = can_terminate(env if self.id is None else self.id)
        build_mode = None if self.id is None else self.build_with_mode
        self.check("built", lambda: type(env.unwrapped).__name__)
        self.check("observation space", lambda: check_observation_space(env))
        acts = self.check("action space", lambda: check_action_space(env))
        resets = self.check("reset", lambda: check_reset(env, seed))
        steps = self.check("step", lambda: check_step(env, seed), "" if resets else "needs a working reset")
        costs = self.check("costs", lambda: check_costs(env, seed), "" if steps else "needs working steps")
        lacks = "" if costs else "needs steps with costs"
        no_bounds = lacks or ("" if acts else "needs a bounded action space")
        self.check("action bounds", lambda: check_bounds(env, seed), no_bounds)
        self.check("time limit", lambda: check_ends(env, seed, ends_early, max_steps), lacks)
        self.check("render modes", lambda: check_drawing(env, build_mode, modes, seed), lacks)
        seeded = self.check("seeds", lambda: check_seeds(env, seed), lacks)
        if self.id is None:
            lacks = "needs the id of a task, by which another environment can be built"
        elif not seeded:
            lacks = "needs seeds that repeat episodes"
        self.check("replay", lambda: check_replay(env, self.build, seed), lacks)
        self.check("vector", lambda: check_vector(self.build, seed), lacks)
        for method in ("spawn", "fork") if workers else ():
            if method in multiprocessing.get_all_start_methods():
                self.check(f"worker ({method})", self._process_check(method), lacks)

    def check(self, name: str, call: Callable[[], str], lacks: str = "") -> bool:
        """Make one check and return whether it passed.

        :param lacks: why the check cannot be made; empty if it can.
        """
        try:
            if lacks:
                raise SkippedError(lacks)
            self.findings.append(Finding(check=name, status="ok", message=call()))
            return True
        except CheckFailedError as error:
            self.findings.append(_failed(name, error))
        except SkippedError as reason:
            self.findings.append(Finding(check=name, status="skipped", message=str(reason)))
        except Exception as error:  # of any kind, because the code is the user's
            line = "breakpoint()  # at the line named here"
            self.findings.append(_failed(name, CheckFailedError(f"raised {raised(error)}", line)))
        return False

    def build(self) -> gymnasium.Env:
        """Build another environment of the task."""
        assert self.id is not None
        return make_joint(self.id, **self.arguments)

    def build_with_mode(self, mode: str) -> gymnasium.Env:
        """Build another environment of the task, which can be drawn."""
        assert self.id is not None
        return make_joint(self.id, mode, **self.arguments)

    def _process_check(self, method: str) -> Callable[[], str]:
        def check() -> str:
            assert self.id is not None
            expected: list[Row] = list(rows(self.env, self.seed, STEPS))
            return check_process(method, env_fn(self.id, **self.arguments), expected, self.seed)

        return check


def _built(task: Any, costs: str | Sequence[str] | None) -> gymnasium.Env:
    """Build the environment, or wrap one as `make` does.

    :raises CheckFailedError: it cannot be built.
    """
    arguments: dict[str, Any] = {} if costs is None else {"costs": costs}
    try:
        return make_joint(task, **arguments) if isinstance(task, str) else _wrapped(task, arguments)
    except (UnknownTaskError, SuiteNotInstalledError):
        raise
    except Exception as error:  # of any kind, because the code is the user's
        if isinstance(error, ImportError) and isinstance(task, str) and repr(task) in str(error):
            raise
        raise CheckFailedError(
            f"the environment cannot be built: {raised(error)}", _fix_of_build(error)
        ) from error


def _wrapped(env: Any, arguments: dict[str, Any]) -> gymnasium.Env:
    if isinstance(env, gymnasium.Env):
        inner: Any = env
        while isinstance(inner, gymnasium.Wrapper) and not isinstance(inner, CostWrapper):
            inner = inner.env
        if isinstance(inner, CostWrapper | CostEnv):
            return env
        return CostWrapper(env, env_id=type(env.unwrapped).__name__, **arguments)
    from pettingzoo import ParallelEnv

    from fsrl_ext.env.agents import ParallelCostEnv, TeamEnv

    if not isinstance(env, ParallelEnv):
        raise TypeError(f"task must be an id, a gymnasium.Env or a pettingzoo.ParallelEnv, got {env!r}")
    if not isinstance(env, ParallelCostEnv):
        env = ParallelCostEnv(env, env_id=type(env).__name__)
    return TeamEnv(env)


def _fix_of_build(error: Exception) -> str:
    text = str(error)
    if "observation_space" in text:
        return "self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (n,), np.float32)"
    if "action_space" in text:
        return "self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (n,), np.float32)"
    if "the actions of" in text:
        return "return gymnasium.spaces.Box(-1.0, 1.0, (n,), np.float32)  # in action_space"
    if "observation space" in text or "observation part" in text:
        return "return gymnasium.spaces.Box(-np.inf, np.inf, (n,), np.float32)  # in observation_space"
    if "possible_agents" in text:
        return 'self.possible_agents = ["first", "second"]'
    return "breakpoint()  # at the line named here"


def _failed(check: str, failure: CheckFailedError) -> Finding:
    return Finding(check=check, status="fails", message=str(failure), fix=failure.fix)
