"""Each check of `check_env` fails on an environment that misses one thing, and says what mends it."""

import multiprocessing
import os

import gymnasium
import pytest
from gymnasium import spaces
from toys.broken import FAULTS, HORIZON, LockedEnv, SoundEnv
from toys.teams import ThrottlesEnv

from fsrl_ext.cli import main
from fsrl_ext.env import UnknownTaskError, check_env, env_fn, register_task
from fsrl_ext.env.check.episodes import rows
from fsrl_ext.env.check.findings import CheckFailedError
from fsrl_ext.env.check.repetition import STEPS, check_process

NAMES = [name for name, *_ in FAULTS]


@pytest.fixture(scope="module", autouse=True)
def _registered():
    register_task("CheckSound-v0", entry_point=SoundEnv, max_episode_steps=HORIZON)
    register_task("CheckLocked-v0", entry_point=LockedEnv, max_episode_steps=HORIZON)
    for name, kind, arguments, *_ in FAULTS:
        register_task(f"Check_{name}-v0", entry_point=kind, **arguments)


def spaces_of(space):
    return {"slow": space, "fast": space}


def failed(findings):
    return [finding for finding in findings if finding.status == "fails"]


def test_a_sound_environment_passes_every_check_in_this_process_and_in_others():
    findings = check_env("CheckSound-v0")
    assert {finding.status for finding in findings} == {"ok"}, findings
    checks = [finding.check for finding in findings]
    assert checks[-1] == "worker (fork)"
    assert "worker (spawn)" in checks
    assert len(set(checks)) == len(checks) == 14
    assert not any(finding.fix for finding in findings)


@pytest.mark.parametrize(("name", "_", "__", "check", "message", "fix"), FAULTS, ids=NAMES)
def test_a_fault_fails_its_check_and_no_other(name, _, __, check, message, fix):
    (finding,) = failed(check_env(f"Check_{name}-v0", workers=False))
    assert finding.check == check
    assert message in finding.message
    assert fix in finding.fix
    assert "\n" not in finding.fix


def test_every_check_is_seen_to_fail():
    checks = {finding.check for finding in check_env("CheckSound-v0", workers=False)}
    assert checks == {check for *_, check, _, _ in FAULTS}


def test_what_a_failed_check_leaves_open_is_skipped_with_the_reason():
    findings = {x.check: x for x in check_env("Check_no_cost-v0", workers=False)}
    assert findings["step"].status == "ok"
    assert findings["seeds"].status == "skipped"
    assert findings["seeds"].message == "needs steps with costs"
    assert findings["replay"].message == "needs seeds that repeat episodes"


def test_names_of_costs_that_the_task_lacks_fail():
    (finding,) = failed(check_env("CheckSound-v0", costs=("heat",), workers=False))
    assert finding.check == "costs"
    assert "no named parts, got heat" in finding.message


def test_a_long_time_limit_is_not_played():
    findings = {x.check: x for x in check_env("CheckSound-v0", workers=False, max_steps=2 * HORIZON - 1)}
    assert findings["time limit"].status == "skipped"
    assert "max_steps=23" in findings["time limit"].message


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("CheckLocked-v0", r"cannot be sent from a process \(fork\)"),
        ("Check_unbuilt-v0", r"a process \(fork\) cannot build"),
        ("Check_raises-v0", r"fails in a process \(fork\): ZeroDivisionError"),
        ("Check_seedless-v0", r"the episodes in a process \(fork\) are others: the observation"),
    ],
)
def test_faults_that_only_a_process_shows(id, message):
    sound = env_fn("CheckSound-v0")
    expected = list(rows(sound(), 0, STEPS))
    assert "repeats" in check_process("fork", sound, expected, 0)
    with pytest.raises(CheckFailedError, match=message) as caught:
        check_process("fork", env_fn(id), expected, 0)
    assert caught.value.fix
    assert not multiprocessing.active_children()


def test_a_process_that_ends_and_a_builder_that_cannot_be_sent():
    with pytest.raises(CheckFailedError, match="ended with code 3"):
        check_process("fork", lambda: os._exit(3), [], 0)
    lock = multiprocessing.Lock()
    with pytest.raises(CheckFailedError, match="cannot be pickled"):
        check_process("fork", lambda: lock.acquire(), [], 0)


def test_objects_are_checked_as_far_as_one_environment_goes():
    for env in (gymnasium.wrappers.TimeLimit(SoundEnv(), HORIZON), ThrottlesEnv()):
        findings = {x.check: x for x in check_env(env)}
        assert findings["seeds"].status == "ok"
        assert findings["replay"].status == "skipped"
        assert "needs the id of a task" in findings["replay"].message
    assert [x.check for x in failed(check_env(SoundEnv()))] == ["time limit"]
    (finding,) = failed(check_env([SoundEnv]))
    assert "task must be an id" in finding.message


def test_a_team_that_has_no_costs_is_told_where_they_go():
    class Free(ThrottlesEnv):
        def step(self, actions):
            *rest, infos = super().step(actions)
            return *rest, {name: {} for name in infos}

    (finding,) = failed(check_env(Free()))
    assert (finding.check, "infos[agent]" in finding.fix) == ("costs", True)


@pytest.mark.parametrize(
    ("attributes", "message", "fix"),
    [
        ({"possible_agents": []}, "possible_agents must list", "self.possible_agents = "),
        (
            {"spaces": spaces_of(spaces.Graph(spaces.Box(-1, 1, (1,)), None))},
            "slow: the observation space",
            "(n,)",
        ),
        ({"actions": spaces_of(spaces.Discrete(2))}, "the actions of slow", "# in action_space"),
    ],
)
def test_a_team_that_cannot_be_built_is_told_why(attributes, message, fix):
    team = ThrottlesEnv()
    vars(team).update(attributes)
    (finding,) = check_env(team)
    assert (finding.check, finding.status) == ("built", "fails")
    assert message in finding.message
    assert fix in finding.fix


def test_the_command_prints_a_line_for_each_check_and_the_line_that_mends(capsys):
    assert main(["check", "CheckSound-v0", "--no-workers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "CheckSound-v0: 12 ok, 0 failed, 0 skipped"
    assert all(line.startswith("ok ") for line in lines[:-2])
    assert main(["check", "Check_no_cost-v0", "--no-workers"]) == 1
    out = capsys.readouterr().out
    assert 'mend: info["cost"] = float(cost)' in out
    assert main(["check", "Check_no_cots-v0"]) == 2
    assert "did you mean Check_no_cost-v0" in capsys.readouterr().err
    assert main(["check", "no_such_module:Cart-v0"]) == 2
    assert "cannot be imported" in capsys.readouterr().err
    with pytest.raises(UnknownTaskError):
        check_env("Check_no_cots-v0")
