"""Runs of several agents: every algorithm, limits of the team or of each, resuming, tables, films, errors."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from toys.runs import assert_same_run, run_killed
from toys.settings import OFFPOLICY_NAMES, small_config

from fsrl_ext.cli import main
from fsrl_ext.errors import CheckpointError
from fsrl_ext.experiment import (
    Algorithm,
    ExperimentConfig,
    TeamEvaluation,
    evaluate,
    load_policy,
    make_config,
    record_video,
    registry,
    resume,
    run,
)
from fsrl_ext.experiment.algorithms.offpolicy import OffpolicyTraining, deterministic_networks
from fsrl_ext.experiment.registry import algorithm, algorithms
from fsrl_ext.experiment.saved.evaluate import agents_table, evaluation_report, evaluation_table
from fsrl_ext.experiment.settings import list_settings
from fsrl_ext.experiment.sweeps.readiness import check_runs
from fsrl_ext.experiment.task import TaskSpec, TeamShape
from fsrl_ext.experiment.training.build import build_policy
from fsrl_ext.experiment.training.checkpoint import read_checkpoint, save_checkpoint
from fsrl_ext.net import AgentActors, DeterministicActor
from fsrl_ext.policy import DDPGLagConfig, DDPGLagPolicy

TOY = "toys.teams:make_throttles"
LEAVER = "toys.teams:make_leaver"
SETTINGS = {"steps": 640, "step_per_collect": 160, "selection_episodes": 2, "final_episodes": 2}
TEAMS = [name for name in algorithms() if "agents" in list_settings(name)]


def config(name="ppo_lag", task=LEAVER, **settings):
    if algorithm(name).constrained:
        settings.setdefault("cost_limit", (3.0, 5.0) if settings.get("cost_unit") == "agent" else 8.0)
    return small_config(name, task, **{**SETTINGS, **settings})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of independent policies with a limit for each agent, one of which leaves early."""
    settings = config("sac_lag", agents="independent", cost_unit="agent")
    return run(settings, out=tmp_path_factory.mktemp("runs"), run_name="run", show_progress=False)


def test_which_algorithms_train_teams():
    assert set(TEAMS) == {*OFFPOLICY_NAMES, "cpo", "trpo_lag", "ppo_lag", "focops", "trpo", "ppo"}
    with pytest.raises(ValueError, match="unknown setting 'agents'"):
        make_config("meta_cpo", "MetaAim", agents="shared")


@pytest.mark.parametrize("agents", ["shared", "independent"])
@pytest.mark.parametrize("name", TEAMS)
def test_every_algorithm_builds_policies_that_see_their_own_observations(name, agents):
    policy, spec = build_policy(config(name, TOY, agents=agents))
    assert spec.team == TeamShape(names=("slow", "fast"), obs_dims=(2, 3), act_dims=(1, 2))
    assert isinstance(policy.actor, AgentActors)
    policy.eval()
    obs = np.array([0.5, -0.2, 0.1, 0.9, -0.7, 1, 1], np.float32)
    others = obs.copy()
    others[2:5] = 0.3
    own, changed = policy.compute_action(obs), policy.compute_action(others)
    assert own.shape == (3,)
    assert own[0] == changed[0]
    assert (own[1:] != changed[1:]).all()


@pytest.mark.parametrize(("name", "agents"), [("cvpo", "shared"), ("cpo", "independent")])
def test_a_run_goes_on_as_if_nothing_had_happened(name, agents, tmp_path, monkeypatch):
    monkeypatch.setattr("fsrl_ext.experiment.training.snapshot.INTERVAL", 0.0)
    monkeypatch.setattr("fsrl_ext.experiment.training.snapshot.TIME_SHARE", np.inf)
    settings = config(name, agents=agents, cost_unit="agent", step_per_collect=52)
    whole = run(settings, out=tmp_path, run_name="whole", show_progress=False, cores=1)
    folder = run_killed(settings, 300, tmp_path)
    assert resume(folder, show_progress=False, cores=2).result["resumed"][0]["exact"]
    assert_same_run(whole.folder, folder)


def test_a_limit_for_each_agent(trained):
    judged = trained.result["last"]
    # The episode of the team is one episode, with one cost for each agent.
    assert trained.result["train_episodes"] == 640 // 40
    assert np.shape(judged["costs"]) == (2, 2)
    slow, fast = np.array(judged["costs"]).T
    assert (slow <= 7 * 0.25).all()  # the agent leaves after seven steps
    assert (fast > 7 * 0.25).all()


def test_evaluation_by_agent(trained, capsys):
    evaluation = evaluate(trained.folder, episodes=2)
    assert isinstance(evaluation, TeamEvaluation)
    judged = trained.result["best"]
    np.testing.assert_array_equal(evaluation.returns, judged["returns"])
    np.testing.assert_array_equal(evaluation.costs, judged["costs"])
    assert evaluation.agents == ("slow", "fast")
    np.testing.assert_allclose(evaluation.agent_returns.sum(1), evaluation.returns)
    np.testing.assert_allclose(evaluation.agent_costs, evaluation.costs, rtol=1e-5)
    assert evaluation.agent_lens.tolist() == [[7, 40]] * 2
    more = evaluate(trained.folder, episodes=4)
    np.testing.assert_allclose(more.agent_returns.sum(1), more.returns)
    assert evaluation_report(evaluation)["agents"]["lens"] == [[7, 40]] * 2
    assert [line.split("  ")[0] for line in evaluation_table(evaluation).splitlines()[2:]] == [
        "return", "cost of slow", "cost of fast",
        "discounted cost of slow", "discounted cost of fast", "overall",
    ]  # fmt: skip
    rows = [line.split() for line in agents_table(evaluation).splitlines()[2:]]
    assert [(row[0], row[-1]) for row in rows] == [("slow", "7.0"), ("fast", "40.0")]
    assert float(rows[1][1]) == pytest.approx(evaluation.agent_returns[:, 1].mean(), abs=0.01)


def test_the_command_line_trains_judges_and_films(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = (
        "train ppo_lag toys.teams:make_throttles --agents independent --cost-unit team --cost-limit 8 "
        "--steps 160 --step-per-collect 160 --num-envs 4 --hidden-sizes 8 --selections 1 "
        "--selection-episodes 2 --final-episodes 2 --run-name run --quiet"
    )
    assert main(command.split()) == 0
    command = "evaluate runs/run --episodes 2 --video film.gif --json out.json --quiet"
    assert main(command.split()) == 0
    out = capsys.readouterr().out
    assert "agent" in out
    assert "slow" in out
    assert (tmp_path / "film.gif").stat().st_size
    agents = json.loads((tmp_path / "out.json").read_text())["agents"]
    assert agents["names"] == ["slow", "fast"]


def test_films_of_each_agent_s_cost(trained, tmp_path):
    (played,) = record_video(trained.folder, tmp_path / "film.gif")
    assert (len(played["cost"]), played["frames"]) == (2, 41)


def test_a_loaded_policy_acts_for_the_team(trained):
    policy = load_policy(trained.folder)
    assert isinstance(policy.actor, AgentActors)
    assert not policy.actor.shared
    assert policy.compute_action(np.zeros(7, np.float32)).shape == (3,)


def test_another_task_must_divide_alike(trained, tmp_path):
    assert isinstance(evaluate(trained.folder, task=TOY, episodes=2), TeamEvaluation)
    with pytest.raises(
        ValueError, match=r"toys.teams:make_swapped has observations \[3, 2\] and actions \[2, 1"
    ):
        evaluate(trained.folder, task="toys.teams:make_swapped", episodes=2)


@pytest.mark.parametrize(("name", "value"), [("agents", "independent"), ("cost_unit", "agent")])
def test_tasks_of_one_agent_have_no_agents(name, value):
    single = small_config("cpo", **{name: value})
    message = f"{name} must be '.*' for ToyLine-v0, which has one agent, got '{value}'"
    with pytest.raises(ValueError, match=message):
        build_policy(single)
    with pytest.raises(ValueError, match=message):
        check_runs([single], on_this_machine=False)


def test_settings_that_do_not_fit_the_team():
    with pytest.raises(ValueError, match=r"agents must be one of .*got 'each'"):
        config(agents="each")
    with pytest.raises(ValueError, match=r"cost_limit must have one number per cost: .* reports 2, got 1"):
        build_policy(config(cost_unit="agent", cost_limit=8.0))
    with pytest.raises(ValueError, match=r"cost_unit must be 'team' for toys.teams:make_shared"):
        build_policy(config(task="toys.teams:make_shared", cost_unit="agent"))
    with pytest.raises(ValueError, match=r"toys.teams:make_endless has no time limit; .* max_cycles"):
        build_policy(config(task="toys.teams:make_endless"))


def one_network(spec, training, *, num_costs, device):
    """Networks that know nothing of agents."""
    networks = deterministic_networks(spec, training, num_costs=num_costs, device=device)
    actor = DeterministicActor(spec.obs_dim, spec.act_dim)
    return {**networks, "actor": actor, "actor_optim": torch.optim.Adam(actor.parameters())}


def test_an_algorithm_whose_actor_sees_all_agents_is_refused(monkeypatch):
    row = Algorithm(
        summary="mine", policy=DDPGLagPolicy, config=DDPGLagConfig, training=OffpolicyTraining,
        networks=one_network,
    )  # fmt: skip
    monkeypatch.setitem(registry._algorithms, "blind_ddpg", row)  # gone after this test
    settings = make_config("blind_ddpg", TOY, cost_limit=8.0)
    with pytest.raises(ValueError, match=r"blind_ddpg cannot train .* 2 agents: its networks do not tell"):
        build_policy(settings)


def test_settings_of_several_agents_leave_the_digest_of_one_as_it_was():
    single = small_config("cpo")
    data = single.as_dict()
    for name in ("agents", "cost_unit"):
        del data["training"][name]
    assert ExperimentConfig.from_dict(data).digest() == single.digest()
    assert (
        len(
            {
                config(agents=x, cost_unit=y).digest()
                for x in ("shared", "independent")
                for y in ("team", "agent")
            }
        )
        == 4
    )


def test_files_from_before_several_agents_load(trained, tmp_path):
    data = read_checkpoint(trained.folder / "checkpoints" / "last.pt")
    assert data["spec"]["team"]["names"] == ["slow", "fast"]
    run_of_one = run(small_config("ppo_lag", steps=160), out=tmp_path, show_progress=False)
    file = run_of_one.folder / "checkpoints" / "last.pt"
    assert "team" not in read_checkpoint(file)["spec"]
    policy = load_policy(file)
    older = run_of_one.result["config"]
    for name in ("agents", "cost_unit"):
        del older["training"][name]
    settings = ExperimentConfig.from_dict(older)
    spec = TaskSpec.from_dict(read_checkpoint(file)["spec"])

    @dataclasses.dataclass(frozen=True)
    class Former:
        def as_dict(self):
            return older

    counters = {"env_step": 0, "gradient_step": 0, "episode": 0}
    save_checkpoint(tmp_path / "former.pt", policy, config=Former(), spec=spec, counters=counters)
    obs = np.zeros(2, np.float32)
    former = load_policy(tmp_path / "former.pt")
    np.testing.assert_array_equal(former.compute_action(obs), policy.compute_action(obs))
    assert settings.training.agents == "shared"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs_dims": (2, 2)}, "spec.team must divide the observations and the actions"),
        ({"act_dims": (1,)}, "spec.team must have an entry for each agent"),
    ],
)
def test_an_edited_division_is_refused(change, message, trained, tmp_path):
    data = read_checkpoint(trained.folder / "checkpoints" / "last.pt")
    spec = TaskSpec.from_dict(data["spec"])
    spec = dataclasses.replace(spec, team=dataclasses.replace(spec.team, **change))
    settings = ExperimentConfig.from_dict(data["config"])
    policy = load_policy(trained.folder)
    save_checkpoint(tmp_path / "x.pt", policy, config=settings, spec=spec, counters=data["counters"])
    with pytest.raises(CheckpointError, match=message):
        load_policy(tmp_path / "x.pt")
