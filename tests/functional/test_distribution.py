"""The distributions of actions against torch.distributions and finite differences."""

import pytest
import torch

from fsrl_ext.errors import NonFiniteError
from fsrl_ext.functional.conjugate_gradient import FisherVectorProduct
from fsrl_ext.functional.distribution import Categorical, Gaussian, distribution, joined

B, A = 6, 4


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_categorical_distribution_is_that_of_torch():
    logits, others = draw(0, B, A), draw(1, B, A)
    ours, other = Categorical.of(logits), Categorical.of(others)
    theirs, their_other = (torch.distributions.Categorical(logits=x) for x in (logits, others))
    act = torch.arange(B) % A
    torch.testing.assert_close(ours.probs, theirs.probs)
    torch.testing.assert_close(ours.log_density(act), theirs.log_prob(act))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(ours.kl(other), torch.distributions.kl_divergence(theirs, their_other))
    assert torch.equal(ours.mode(), logits.argmax(-1))
    assert ours.metrics() == {"policy/entropy": pytest.approx(float(theirs.entropy().mean()))}


def test_samples_come_as_often_as_they_should():
    torch.manual_seed(0)
    dist = Categorical.of(draw(2, 1, A).expand(20_000, A))
    act = dist.sample()
    assert (act.dtype, act.shape) == (torch.int64, (20_000,))
    shares = torch.bincount(act, minlength=A) / len(act)
    torch.testing.assert_close(shares.double(), dist.probs[0], atol=0.012, rtol=0)


def test_probabilities_that_underflow_have_no_nan():
    dist = Categorical.of(torch.tensor([[0.0, -1e4, 3.0]]))
    other = Categorical.of(torch.tensor([[1.0, 0.0, -1e4]]))
    for values in (dist.entropy(), dist.kl(other), other.kl(dist), dist.kl(dist)):
        assert torch.isfinite(values).all()
    assert float(dist.kl(dist)) == 0.0


@pytest.mark.parametrize("call", ["sample", "mode"])
def test_actions_of_broken_logits_are_refused(call):
    with pytest.raises(NonFiniteError, match="log probabilities is nan"):
        getattr(Categorical.of(torch.tensor([[0.0, float("nan")]])), call)()


def test_products_with_the_fisher_matrix_are_second_derivatives_of_the_divergence():
    """Central differences of the gradient of KL(old || new) at new = old, for a network's logits."""
    obs, vector = draw(3, B, 3), draw(4, 3 * A)
    weight = draw(5, 3 * A).requires_grad_()
    old = Categorical.of(obs @ weight.detach().view(3, A))

    def gradient(at):
        at = at.detach().requires_grad_()
        divergence = old.kl(Categorical.of(obs @ at.view(3, A))).mean()
        return torch.autograd.grad(divergence, at)[0]

    dist = Categorical.of(obs @ weight.view(3, A))
    product = FisherVectorProduct(dist.detach().kl(dist).mean(), [weight], damping=0.0)(vector)
    step = 1e-5
    differences = (gradient(weight + step * vector) - gradient(weight - step * vector)) / (2 * step)
    torch.testing.assert_close(product, differences, rtol=1e-6, atol=1e-8)
    # The Fisher matrix of logits is diag(p) - p p' in each state.
    p = old.probs
    matrices = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
    exact = torch.einsum("bi,bac,bj->iajc", obs, matrices, obs).reshape(3 * A, 3 * A) / B
    torch.testing.assert_close(product, exact @ vector)


def test_an_actor_s_output_tells_the_distribution():
    assert isinstance(distribution(torch.zeros(2, 3)), Categorical)
    gaussian = distribution((torch.zeros(2, 3), torch.ones(2, 3)))
    assert isinstance(gaussian, Gaussian)
    assert gaussian.metrics() == {"policy/std": 1.0}


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_rows_are_taken_and_joined_alike(kind):
    outputs = [draw(i, B, A) for i in (6, 7)]
    parts = [distribution((x, x.exp()) if kind == "gaussian" else x) for x in outputs]
    both, act = joined(parts), torch.zeros(2 * B, A) if kind == "gaussian" else torch.zeros(2 * B, dtype=int)
    density = both.log_density(act.double() if kind == "gaussian" else act)
    assert density.shape == (2 * B,)
    rows = torch.tensor([1, B + 2])
    torch.testing.assert_close(both[rows].entropy(), both.entropy()[rows])
    torch.testing.assert_close(both[B:].kl(parts[1]), torch.zeros(B, dtype=torch.float64))
