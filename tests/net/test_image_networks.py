"""Features of images: shapes, scales, refusals, and learning from pictures."""

import numpy as np
import pytest
import torch
from toys.envs import picture_of
from toys.networks import PictureNet, make_picture_net

from fsrl_ext.net import (
    CategoricalActor,
    ConvNet,
    DiscreteCritic,
    EnsembleCritic,
    FeatureActor,
    GaussianActor,
    ImageFeatures,
    OnpolicyActor,
    SharedFeatureCritic,
    ValueCritic,
)
from fsrl_ext.net import images as module
from fsrl_ext.net.images import MIN_SIDE, pixel_shape

SIDE = 40


def pictures(count, seed=0):
    """Return pictures ``[count, SIDE, SIDE, 3]`` and the places of their spots."""
    places = np.random.default_rng(seed).uniform(-1, 1, count).astype(np.float32)
    return np.stack([picture_of(x, False, SIDE) for x in places]), places


def features_of(shape=(SIDE, SIDE, 3)):
    return ImageFeatures(ConvNet(*pixel_shape(shape)), shape)


@pytest.mark.parametrize("size", [(36, 36), (48, 40), (64, 64), (84, 84), (210, 160)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_convolutions_adapt_to_the_size(size, channels):
    for shape in ((*size, channels), (channels, *size)):
        assert pixel_shape(shape) == (channels, *size)
        features = features_of(shape)
        out = features(np.full((2, *shape), 7, np.uint8))
        assert out.shape == (2, features.width)
        assert out.abs().max() <= 1.0


def test_a_small_image_is_refused_with_the_least_size():
    with pytest.raises(
        ValueError, match=r"height and width must be >= 36 for the convolutions, got 35 and 84"
    ):
        ConvNet(3, MIN_SIDE - 1, 84)


def test_both_orders_of_the_axes_give_the_same_features():
    network = ConvNet(3, SIDE, SIDE)
    images = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)
    last = ImageFeatures(network, (SIDE, SIDE, 3))(images)
    first = ImageFeatures(network, (3, SIDE, SIDE))(images.transpose(0, 3, 1, 2))
    assert torch.allclose(last, first, atol=1e-6)


def test_the_network_sees_float32_pixels_between_0_and_1():
    seen = []

    class Spy(torch.nn.Flatten):
        def forward(self, pixels):
            seen.append(pixels)
            return super().forward(pixels)

    features = ImageFeatures(Spy(), (5, 6, 3))
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8)
    images[0, 0, 0] = 0, 128, 255
    features(images)
    assert (seen[-1].dtype, seen[-1].shape) == (torch.float32, (4, 3, 5, 6))
    assert torch.equal(seen[-1], torch.as_tensor(images).permute(0, 3, 1, 2).float() / 255)


@pytest.mark.parametrize("make", [make_picture_net, PictureNet])
def test_networks_with_tianshou_s_call_compute_features(make):
    shape = (SIDE, SIDE, 3)
    network = make(pixel_shape(shape))
    features = ImageFeatures(network, shape)
    actor = FeatureActor(features, GaussianActor(features.width, 2))
    (mean, std), state = actor(np.zeros((3, *shape), np.uint8))
    assert (mean.shape, std.shape, state) == ((3, 2), (3, 2), None)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (np.zeros((2, SIDE * SIDE * 3), np.float32), r"got the shape \[2, 4800\]"),
        (np.zeros((2, 3, SIDE, SIDE), np.uint8), r"got the shape \[2, 3, 40, 40\]"),
    ],
)
def test_what_is_no_image_of_the_shape_is_refused(inputs, words):
    with pytest.raises(ValueError, match=rf"observations must be images \['B', 40, 40, 3\], {words}"):
        features_of()(inputs)


def test_a_network_that_takes_no_such_pixels_is_refused():
    with pytest.raises(
        ValueError, match=r"actor must take float32 inputs \[2, 3, 40, 40\], got RuntimeError"
    ):
        ImageFeatures(torch.nn.Conv2d(1, 2, 3), (SIDE, SIDE, 3), name="actor")
    with pytest.raises(ValueError, match=r"shape must have three axes, .* got \(40, 40\)"):
        ImageFeatures(torch.nn.Flatten(), (SIDE, SIDE))


def test_many_images_are_computed_in_blocks_without_gradients(monkeypatch):
    features, (images, _) = features_of(), pictures(7)
    whole = features(images)
    monkeypatch.setattr(module, "_BLOCK", 3)
    assert torch.equal(features(images), whole)  # with gradients, in one pass
    with torch.no_grad():
        assert torch.allclose(features(images), whole, atol=1e-6)


def test_all_networks_of_a_critic_share_one_pass_over_the_images():
    passes = []
    features, (images, _) = features_of(), pictures(5)
    features.network.register_forward_hook(lambda *_: passes.append(1))
    inner = EnsembleCritic(features.width, 2, num_costs=2)
    critic = SharedFeatureCritic(features, inner)
    assert critic.num_costs == 2
    many = torch.rand(5, 7, 2)
    q = critic(torch.as_tensor(images), many)
    assert len(passes) == 1
    assert (q.reward.shape, q.cost.shape) == ((2, 5, 7), (2, 2, 5, 7))
    seen = features(images)
    for k in range(7):
        assert torch.allclose(q.reward[..., k], inner(seen, many[:, k]).reward, atol=1e-6)
    discrete = SharedFeatureCritic(features, DiscreteCritic(features.width, 3))
    assert discrete(torch.as_tensor(images)).cost.shape == (1, 2, 5, 3)
    values = SharedFeatureCritic(features, ValueCritic(features.width))(torch.as_tensor(images))
    assert values.shape == (5, 2)
    values.sum().backward()
    assert all(x.grad.abs().sum() > 0 for x in features.parameters())


@pytest.mark.parametrize("kind", [GaussianActor, OnpolicyActor, CategoricalActor])
def test_a_short_regression_makes_the_action_follow_the_spot(kind):
    """The mean, or the log odds of the second of two actions, moves with the place of the spot."""
    torch.manual_seed(0)
    features = features_of()
    actor = FeatureActor(features, kind(features.width, 2 if kind is CategoricalActor else 1))
    optimiser = torch.optim.Adam(actor.parameters(), lr=1e-3)

    def action(images):
        out = actor(images)[0]
        return out[:, 1] - out[:, 0] if kind is CategoricalActor else out[0].squeeze(1)

    for step in range(80):
        images, places = pictures(32, seed=step)
        loss = (action(images) - torch.as_tensor(places)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    images, places = pictures(64, seed=1000)
    error = (action(images).detach().numpy() - places) ** 2
    assert error.mean() < 0.1 * places.var()
