"""What a critic says of reward and costs, against what the episodes of its policy and replays realise.

Dimension letters: ``T`` steps of an episode, ``S`` signals (reward first, then the costs), ``n`` states,
``N`` actions of a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsrl_ext.experiment.saved.diagnosis.critic import Critic
from fsrl_ext.experiment.saved.diagnosis.play import Episode, Player
from fsrl_ext.report.diagnosis.measures import (
    Realised,
    action_order,
    action_slope,
    bias,
    calibration,
    discounted_sums,
    phase_means,
    rank_correlation,
    ratio_of_means,
    realised_sums,
    resampled,
    spread,
    tail_window,
)
from fsrl_ext.trainer.progress import progress

PHASES = 5
"""Number of equal parts of an episode."""
SPREAD_STATES, SPREAD_ACTIONS = 1_000, 16
"""Number of visited states, about, and of sampled actions in each, for the spread of values."""


@dataclass(frozen=True, kw_only=True)
class Values:
    """Values of a critic in all states of some episodes, and what the episodes realised.

    :param episodes: of the policy whose values the critic learns.
    :param values: ``[T, S]`` of each episode.
    :param realised: discounted sums of the same signals.
    """

    episodes: Sequence[Episode]
    values: list[np.ndarray]
    realised: Realised


def compare(critic: Critic, episodes: Sequence[Episode], time_limit: int) -> Values:
    """Compute values and discounted sums in all states of the episodes."""
    stops = [critic.stops(x.signals) for x in episodes]
    signals = []
    for episode, stopped in zip(episodes, stops, strict=True):
        # A bonus of the state after a step counts as part of that step's reward.
        later = np.append(critic.bonuses(episode.obs)[1:], 0.0) * ~stopped[:, 0]
        signals.append(episode.signals.copy())
        signals[-1][:, 0] += critic.gamma[0] * later
    realised = realised_sums(
        signals,
        [x.terminated for x in episodes],
        gamma=critic.gamma,
        ends=critic.ends,
        time_limit=time_limit,
        stops=stops,
    )
    return Values(
        episodes=episodes, values=[critic.values(x.obs, x.act) for x in episodes], realised=realised
    )


def level_numbers(compared: Values, critic: Critic, signal: int) -> dict[str, Any]:
    """Return the level of one signal's values, their order over states, and a calibration curve."""
    rows = [
        np.stack([values[counted, signal], sums[counted, signal]], 1)
        for values, sums, counted in (
            (v, g, c[:, signal])
            for v, g, c in zip(
                compared.values, compared.realised.sums, compared.realised.counted, strict=True
            )
        )
    ]
    together = np.concatenate(rows)
    every = np.concatenate([x[:, signal] for x in compared.values])
    numbers: dict[str, Any] = {
        "gamma": float(critic.gamma[signal]),
        "time_limit_ends": bool(critic.ends[signal]),
        "tail_weight": float(compared.realised.tail_weight[signal]),
        "states": len(every),
        "counted_states": len(together),
        "critic_mean_of_all": float(every.mean()),
    }
    if not len(together):
        return numbers
    return numbers | {
        "critic_mean": float(together[:, 0].mean()),
        "realised_mean": float(together[:, 1].mean()),
        "ratio": resampled(ratio_of_means, rows)._asdict(),
        "bias": resampled(bias, rows)._asdict(),
        "rank_correlation": resampled(rank_correlation, rows)._asdict(),
        "calibration": calibration(together).tolist(),
    }


def phase_of_steps(length: int, time_limit: int) -> np.ndarray:
    """Return the phase ``[length]`` of each step of an episode, 0 to ``PHASES - 1``."""
    return np.minimum(np.arange(length) * PHASES // time_limit, PHASES - 1)


def step_phases(episodes: Sequence[Episode], time_limit: int, signal: int) -> list[float]:
    """Return the mean of a signal per step in each phase of the episodes."""
    phases = [phase_of_steps(len(x.signals), time_limit) for x in episodes]
    values = np.concatenate([x.signals[:, signal] for x in episodes])
    return phase_means(values, np.concatenate(phases), PHASES)


def phase_sums(episodes: Sequence[Episode], time_limit: int, signal: int) -> np.ndarray:
    """Return the sums ``[E, PHASES]`` of a signal in each phase of each episode."""
    return np.array(
        [
            np.bincount(
                phase_of_steps(len(x.signals), time_limit), weights=x.signals[:, signal], minlength=PHASES
            )
            for x in episodes
        ]
    )


def critic_phases(compared: Values, time_limit: int, signal: int) -> dict[str, list[float]]:
    """Return means of values and of discounted sums in each phase: over counted states, and over all."""
    phases = np.concatenate([phase_of_steps(len(x), time_limit) for x in compared.values])
    values = np.concatenate([x[:, signal] for x in compared.values])
    sums = np.concatenate([x[:, signal] for x in compared.realised.sums])
    counted = np.concatenate([x[:, signal] for x in compared.realised.counted])
    return {
        "critic_of_all": phase_means(values, phases, PHASES),
        "critic": phase_means(values[counted], phases[counted], PHASES),
        "realised": phase_means(sums[counted], phases[counted], PHASES),
    }


def thinned_states(episodes: Sequence[Episode], count: int) -> np.ndarray:
    """Return about ``count`` of the visited states ``[n, O]``, evenly spaced over all episodes."""
    obs = np.concatenate([x.obs for x in episodes])
    return obs[:: max(len(obs) // count, 1)]


def sampled_values(critic: Critic, player: Player, obs: np.ndarray, *, seed: int) -> np.ndarray:
    """Return values ``[n, N, S]`` of actions that the policy samples in states ``obs [n, O]``."""
    return critic.action_values(obs, player.samples(obs, SPREAD_ACTIONS, seed=seed))


def spread_numbers(values: np.ndarray) -> dict[str, float]:
    """Return how far the values ``[n, N]`` depend on actions and on states."""
    result = spread(values)
    return {**result._asdict(), "relative": result.relative}


def played_slopes(critic: Critic, player: Player, compared: Values, *, seed: int) -> list[dict[str, float]]:
    """Return for each signal the slope of realised sums over values of the actions that were played.

    :param seed: of the other actions that each action is compared with.
    """
    half = SPREAD_ACTIONS // 2
    predicted, realised = [], []
    for k, episode in enumerate(compared.episodes):
        others = critic.action_values(episode.obs, player.samples(episode.obs, 2 * half, seed=seed + k))
        # The action is compared with one half of the others. The mean of the other half is a baseline of the
        # realised sum whose noise is independent of the comparison.
        predicted.append(compared.values[k] - others[:, :half].mean(1))
        realised.append(compared.realised.sums[k] - others[:, half:].mean(1))
    slopes = []
    for i in range(len(critic.gamma)):
        counted = [x[:, i] for x in compared.realised.counted]
        values, sums = (
            [x[c, i] for x, c in zip(part, counted, strict=True)] for part in (predicted, realised)
        )
        slopes.append(action_slope(values, sums, half)._asdict())
    return slopes


def replayed(
    critic: Critic,
    player: Player,
    compared: Values,
    time_limit: int,
    *,
    states: int,
    actions: int,
    chosen_by: int,
    seed: int,
    show_progress: bool,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Play several first actions from some visited states, and the policy afterwards.

    Of :data:`SPREAD_ACTIONS` sampled actions of a state, ``actions`` are taken that are evenly spaced in the
    order of their values, from the lowest to the highest.

    :param chosen_by: number of the signal that the order is about.
    :param seed: of the choice of states and actions.
    :return: values and realised discounted sums ``[n, N, S]``; ``None`` if the environment does not repeat
        itself.
    """
    steps = max(tail_window(float(g), time_limit) for g in critic.gamma)
    generator = np.random.default_rng(seed)
    places = [
        (i, t) for i, counted in enumerate(compared.realised.counted) for t in np.flatnonzero(counted.all(1))
    ]
    picked = generator.choice(len(places), size=min(states, len(places)), replace=False)
    predicted, realised = [], []
    for k in progress(sorted(picked), "replays", total=len(picked), show=show_progress, unit="state"):
        i, t = places[k]
        episode = compared.episodes[i]
        act = player.samples(episode.obs[t : t + 1], SPREAD_ACTIONS, seed=int(seed + k))
        values = critic.action_values(episode.obs[t : t + 1], act)[0]
        order = values[:, chosen_by].argsort(kind="stable")
        taken = order[np.linspace(0, len(order) - 1, actions).round().astype(int)]
        sums = []
        for action in act[0, taken]:
            signals = player.after(episode, t, action, steps=steps, explore=critic.explores)
            if signals is None:
                return None
            nothing = np.zeros(len(critic.gamma))
            sums.append(discounted_sums(signals, critic.gamma, nothing, critic.stops(signals))[0])
        predicted.append(values[taken])
        realised.append(sums)
    return np.array(predicted), np.array(realised)


def order_numbers(predicted: np.ndarray, realised: np.ndarray) -> dict[str, Any]:
    """Return whether the values ``[n, N]`` order actions as the replays do, and the differences."""
    order = action_order(predicted, realised)
    differences = [(x - x.mean(1, keepdims=True)).ravel() for x in (predicted, realised)]
    return {
        "rank_correlation": order.correlation._asdict(),
        "slope": order.slope._asdict(),
        "states": len(predicted),
        "telling_states": order.states,
        "actions": predicted.shape[1],
        "predicted_deviation": order.predicted_deviation,
        "realised_deviation": order.realised_deviation,
        "differences": np.stack(differences, 1).tolist(),
    }
