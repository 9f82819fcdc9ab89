"""The diagnosis of saved policies: critics whose answers are known, every family, and bad input."""

import json
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from toys.cmdps import TwoStateEnv, mean_powers
from toys.policies import GAMMA, build
from toys.runs import resumable_config, run_killed
from toys.settings import small_config

from fsrl_ext.cli import main
from fsrl_ext.experiment import run
from fsrl_ext.experiment.saved.diagnosis.critic import critic_of
from fsrl_ext.experiment.saved.diagnosis.diagnose import diagnose
from fsrl_ext.experiment.saved.diagnosis.play import Player
from fsrl_ext.experiment.saved.diagnosis.signals import (
    compare,
    level_numbers,
    order_numbers,
    played_slopes,
    replayed,
    sampled_values,
    spread_numbers,
)
from fsrl_ext.experiment.training import snapshot
from fsrl_ext.net.values import QValues

STEPS = 60
MEAN, STD = np.array([0.4, -0.4]), np.array([0.5, 0.5])


class KnownActor(torch.nn.Module):
    """Acts with a known Gaussian in each state of the two-state problem."""

    def __init__(self):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.tensor(MEAN, dtype=torch.float32))

    def forward(self, obs, state=None, info=None):
        obs = torch.as_tensor(obs, dtype=torch.float32)
        return ((obs @ self.mean)[:, None], torch.full((len(obs), 1), float(STD[0]))), state


class KnownCritic(torch.nn.Module):
    """Has the exact values of that actor, times a factor; or values that do not depend on the action."""

    num_costs = 1

    def __init__(self, *, factor=1.0, constant=False):
        super().__init__()
        x, squares = mean_powers(MEAN, STD)
        moves = np.array([[1 - x[0], x[0]], [0.5, 0.5]])
        signals = np.stack([np.array([1.0, 2.0]) * x, squares])
        values = np.linalg.solve(np.eye(2) - GAMMA * moves, signals.T).T
        self.factor = torch.nn.Parameter(torch.tensor(factor))
        self.constant, self.values = constant, torch.tensor(values, dtype=torch.float32)

    def forward(self, obs, act, hidden_dtype=None):
        state, x = obs[:, 1], (1 + act[:, 0]) / 2
        to_one = torch.where(state == 1, 0.5, x)
        following = [(1 - to_one) * v[0] + to_one * v[1] for v in self.values]
        reward, cost = (1 + state) * x + GAMMA * following[0], x**2 + GAMMA * following[1]
        if self.constant:
            reward, cost = (v[state.long()] for v in self.values)
        return QValues(self.factor * reward[None], self.factor * cost[None, None])


def known(**changes):
    """Return policy, critic and player of the two-state problem."""
    policy = build("cvpo", actor=KnownActor(), critic=KnownCritic(**changes), max_episode_steps=STEPS).eval()
    return critic_of(policy), Player(policy, gym.wrappers.TimeLimit(TwoStateEnv(), STEPS))


def measured(*, states=40, **changes):
    """Return level, spread, order and slope over played actions of the two-state problem's cost."""
    critic, player = known(**changes)
    episodes = [player.episode(seed, explore=True) for seed in range(15)]
    compared = compare(critic, episodes, STEPS)
    spread = sampled_values(critic, player, episodes[0].obs, seed=0)
    replays = replayed(
        critic, player, compared, STEPS, states=states, actions=4, chosen_by=1, seed=0, show_progress=False
    )
    return (
        level_numbers(compared, critic, 1),
        spread_numbers(spread[:, :, 1]),
        order_numbers(*(x[:, :, 1] for x in replays)),
        played_slopes(critic, player, compared, seed=0)[1],
    )


def test_a_right_critic_is_found_right():
    level, spread, order, slope = measured()
    assert level["ratio"]["low"] < 1.0 < level["ratio"]["high"]
    assert level["ratio"]["value"] == pytest.approx(1.0, abs=0.1)
    assert level["rank_correlation"]["low"] > 0.2
    assert spread["over_actions"] > 0.1
    assert order["rank_correlation"]["low"] > 0.2
    assert order["slope"]["low"] < 1.0 < order["slope"]["high"]
    assert slope["low"] < 1.0 < slope["high"]
    assert slope["low"] > 0.0


def test_half_of_the_value_is_found_to_be_half():
    level, _, order, slope = measured(factor=0.5, states=15)
    assert level["ratio"]["high"] < 0.6
    assert level["bias"]["high"] < 0.0
    assert order["slope"]["value"] == pytest.approx(2.0, abs=0.6)
    assert slope["value"] == pytest.approx(2.0, abs=0.8)


def test_a_constant_critic_ranks_no_action():
    _, spread, order, _ = measured(constant=True, states=3)
    assert spread["over_actions"] == pytest.approx(0.0, abs=1e-6)
    assert order["predicted_deviation"] == pytest.approx(0.0, abs=1e-6)
    assert order["rank_correlation"]["value"] == 0.0


def test_the_recorded_action_replayed_is_the_recorded_episode():
    """Without noise the same first action leads to the same signals; another one to others."""
    _, player = known()
    episode = player.episode(5, explore=False)
    again = player.after(episode, 10, episode.act[10], steps=STEPS, explore=False)
    np.testing.assert_array_equal(again, episode.signals[10:])
    other = player.after(episode, 10, episode.act[10] + 0.5, steps=3, explore=False)
    assert len(other) == 3
    assert other[0, 1] > again[0, 1]


def test_an_environment_that_does_not_repeat_itself_is_noticed():
    _, player = known()
    episode = player.episode(5, explore=True)
    episode.obs[7] += 0.1
    assert player.after(episode, 7, episode.act[7], steps=3, explore=True) is None


# --- saved policies ---


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A short run of each family, by the policy's name; CVPO's was killed, so that it has a snapshot."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:  # a snapshot after every cycle
        patch.setattr(snapshot, "TIME_SHARE", math.inf)
        patch.setattr(snapshot, "INTERVAL", 0.0)
        folders = {"cvpo": run_killed(resumable_config("cvpo"), 600, out / "cvpo")}
    for name in ("sac_lag", "td3_lag", "cpo", "focops", "sac"):
        config = small_config(name, steps=160, selections=1)
        folders[name] = run(config, out=out, run_name=name, show_progress=False).folder
    return folders


def shown(capsys, *arguments):
    code = main(["diagnose", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("name", ["cvpo", "sac_lag", "td3_lag", "cpo", "focops", "sac"])
def test_every_family_is_diagnosed(runs, name, tmp_path, capsys):
    arguments = ("--checkpoint", "last", "--episodes", 3, "--states", 4, "--out", tmp_path / "out")
    code, out, _ = shown(capsys, runs[name], *arguments)
    assert code == 0
    report = json.loads((tmp_path / "out" / "diagnosis.json").read_text())
    assert (tmp_path / "out" / "diagnosis.png").read_bytes()[:4] == b"\x89PNG"
    assert report["critic"]["kind"] == ("v" if name in ("cpo", "focops") else "q")
    assert report["critic"]["episodes"] == ("deterministic" if name == "td3_lag" else "stochastic")
    level = report["signals"]["cost"]["level"]
    assert level["states"] == 60
    assert 0 < level["counted_states"] < 60
    assert report["training"]["rows"]
    has_multiplier = name in ("sac_lag", "td3_lag", "focops", "sac")
    assert (report["constraint"][0]["multiplier"] is not None) == has_multiplier
    if name in ("cpo", "focops"):
        assert "spread and order of actions are left out" in out
    else:
        assert report["signals"]["cost"]["order"]["states"] == 4
    if name == "cvpo":
        assert set(report["buffer"]["cost"]) == {"own", "buffer", "newest_tenth", "oldest_tenth"}
        assert "Mean value in" in out
    else:
        assert report["buffer"] is None
    assert len(report["findings"]) == out.split("Findings")[1].count("\n- ")


def test_the_numbers_repeat_themselves_and_leave_torch_alone(runs):
    torch.manual_seed(4)
    before = torch.get_rng_state()
    first, again = (diagnose(runs["cvpo"], episodes=2, states=2, checkpoint="last") for _ in range(2))
    assert json.dumps(first) == json.dumps(again)
    assert torch.equal(before, torch.get_rng_state())


def test_a_checkpoint_elsewhere_has_no_log(runs, tmp_path):
    file = tmp_path / "policy.pt"
    file.write_bytes((runs["sac_lag"] / "checkpoints" / "last.pt").read_bytes())
    report = diagnose(file, episodes=2, states=0)
    assert report["training"] is None
    assert report["signals"]["cost"]["order"] is None
    assert "There is no log of the training beside the policy." in report["notes"]


def test_two_costs_and_early_ends_are_measured(tmp_path):
    config = small_config("cvpo", "ToyLineTwoCosts-v0", cost_limit=(2.0, 1.0), steps=160, selections=1)
    report = diagnose(
        run(config, out=tmp_path, show_progress=False).folder, episodes=2, states=2, checkpoint="last"
    )
    assert list(report["signals"]) == ["reward", "cost 0", "cost 1"]
    one, other = (np.array(report["episodes"]["stochastic"]["costs"])[:, i] for i in range(2))
    np.testing.assert_allclose(one, 2 * other, rtol=1e-6)
    assert "multiplier 1" in report["training"]["rows"]


def test_an_environment_that_forgets_its_seed_leaves_the_order_out(runs, tmp_path):
    config = small_config("sac_lag", "ToyForgetful-v0", steps=160, selections=1)
    report = diagnose(run(config, out=tmp_path, show_progress=False).folder, episodes=2, states=2)
    assert report["signals"]["cost"]["order"] is None
    assert any("does not repeat itself" in x for x in report["notes"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--episodes", "0"], "episodes must be"),
        (["--states", "-1"], "states must be"),
        (["--actions", "1"], "actions must be a whole number >= 2, got 1"),
        (["--seed", "-1"], "seed must be"),
        (["--json", "no/file.json"], "there is no folder no"),
        (["--out", "no/folder"], "there is no folder no"),
        (["--device", "nowhere"], "device"),
    ],
)
def test_bad_input_is_one_line(runs, arguments, message, capsys):
    code, out, err = shown(capsys, runs["sac_lag"], *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_what_is_missing_or_there_already_is_one_line(runs, tmp_path, capsys):
    code, _, err = shown(capsys, "nowhere.pt")
    assert (code, err.count("\n")) == (2, 1)
    assert "no checkpoint at nowhere.pt" in err
    (tmp_path / "diagnosis.json").write_text("{}")
    code, _, err = shown(capsys, runs["sac_lag"], "--out", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "exists already" in err


def test_a_meta_policy_is_refused_in_one_line(tmp_path, capsys):
    folder = run(small_config("meta_cpo"), out=tmp_path, show_progress=False).folder
    code, _, err = shown(capsys, folder)
    assert (code, err.count("\n")) == (2, 1)
    assert "needs a policy of one task, got meta_cpo" in err
