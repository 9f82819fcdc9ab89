"""The networks with a GRU: windows and single steps agree, and gradients end where a window begins."""

import pytest
import torch
from torch.func import functional_call

from fsrl_ext.net import (
    CategoricalActor,
    GRUFeatures,
    OnpolicyActor,
    RecurrentActor,
    RecurrentValueCritic,
    ValueCritic,
    Windows,
)

O, H, A, L = 3, 5, 2, 4  # noqa: E741
LENGTHS = (4, 1, 3)
VALID = torch.arange(L) < torch.tensor(LENGTHS)[:, None]


def make_windows(seed=0):
    torch.manual_seed(seed)
    obs = torch.randn(len(LENGTHS), L, O) * VALID[..., None]
    return Windows(obs, VALID, torch.randn(len(LENGTHS), H), torch.randn(len(LENGTHS), H))


def make_actor(kind=OnpolicyActor, seed=1, **kwargs):
    torch.manual_seed(seed)
    return RecurrentActor(GRUFeatures(O, H), kind(O + H, A, hidden_sizes=(6,), **kwargs), bptt_steps=L)


def make_critic():
    torch.manual_seed(2)
    return RecurrentValueCritic(GRUFeatures(O, H), ValueCritic(O + H, num_costs=2, hidden_sizes=(6,)))


@pytest.mark.parametrize("kind", [OnpolicyActor, CategoricalActor])
def test_windows_give_what_single_steps_give(kind):
    actor, windows = make_actor(kind), make_windows()
    output, state = actor(windows)
    assert state is None
    row = 0
    for w, length in enumerate(LENGTHS):
        state = windows.actor_state[w : w + 1]
        for step in range(length):
            single, state = actor(windows.obs[w, step : step + 1].numpy(), state)
            pairs = [(output, single)] if kind is CategoricalActor else zip(output, single, strict=True)
            for of_window, of_step in pairs:
                torch.testing.assert_close(of_window[row], of_step[0], atol=1e-6, rtol=1e-6)
            row += 1
    assert row == sum(LENGTHS)


def test_without_a_state_an_episode_begins():
    actor, obs = make_actor(), torch.randn(2, O)
    (first, _), after = actor(obs)
    (again, _), _ = actor(obs, torch.zeros(2, H))
    (later, _), _ = actor(obs, after)
    assert torch.equal(first, again)
    assert not torch.allclose(first, later)


def test_the_critic_s_windows_of_one_step_continue_longer_ones():
    critic, windows = make_critic(), make_windows()
    values = critic(windows)
    assert values.shape == (sum(LENGTHS), 3)
    hidden = critic.features(windows.obs, windows.critic_state)[..., -H:]
    # the state after step 2 of window 0, and the observation of step 3
    single = Windows.of_single_steps(windows.obs[0, 3:4], torch.zeros(1, H), hidden[0, 2:3])
    torch.testing.assert_close(critic(single)[0], values[3])


def test_steps_see_the_steps_before_them_in_their_window_and_no_others():
    actor, windows = make_actor(), make_windows()
    obs = windows.obs.clone().requires_grad_()
    mean = actor(Windows(obs, windows.valid, windows.actor_state, windows.critic_state))[0][0]
    (gradient,) = torch.autograd.grad(mean[6].sum(), obs)  # step 1 of window 2
    seen = gradient.abs().sum(-1) > 0
    expected = torch.zeros(3, L, dtype=torch.bool)
    expected[2, :2] = True
    assert torch.equal(seen, expected)


def test_parameters_can_be_exchanged_and_differentiated_twice():
    actor, windows = make_actor(), make_windows()
    other = dict(make_actor(seed=3).named_parameters())
    exchanged = functional_call(actor, {k: v.detach() for k, v in other.items()}, (windows,))[0][0]
    torch.testing.assert_close(exchanged, make_actor(seed=3)(windows)[0][0])
    actor, windows = actor.double(), Windows(*(_double(x) for x in vars(make_windows()).values()))
    weight = actor.features.gru.weight_hh_l0

    def outputs(weight):
        return functional_call(actor, {"features.gru.weight_hh_l0": weight}, (windows,))[0][0]

    assert torch.autograd.gradgradcheck(outputs, (weight.detach().clone().requires_grad_(),))


def _double(x):
    return x.double() if x.is_floating_point() else x


def test_minibatches_have_whole_windows_and_each_step_once():
    windows = make_windows()
    rows_of = torch.full((3, L), -1)
    rows_of[VALID] = torch.arange(sum(LENGTHS))
    seen = []
    for places, rows in windows.minibatches(5):
        assert len(places) == 1  # two windows may have eight steps
        assert torch.equal(rows, rows_of[places][VALID[places]])
        seen += rows.tolist()
    assert sorted(seen) == list(range(sum(LENGTHS)))
    assert [len(rows) for _, rows in windows.minibatches(None)] == [sum(LENGTHS)]
    assert len(list(windows.minibatches(1))) == 3


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="size must be"):
        GRUFeatures(O, 0)
    with pytest.raises(ValueError, match="bptt_steps must be"):
        RecurrentActor(GRUFeatures(O, H), OnpolicyActor(O + H, A), bptt_steps=0)
