"""Settings that the on-policy algorithms share."""

from __future__ import annotations

from dataclasses import dataclass

from fsrl_ext.errors import check_fields


@dataclass(frozen=True, kw_only=True)
class OnpolicyConfig:
    """Returns, advantages and observations of on-policy learning; ``docs/algorithms/onpolicy.md``.

    :raises ValueError: for values that cannot be used, naming them.
    """

    gamma: float = 0.99
    """Discount factor of reward and costs, in (0, 1)."""
    gae_lambda: float = 0.95
    """Decay of the reward's generalised advantages, in (0, 1]."""
    cost_gae_lambda: float = 0.95
    """Decay of the costs' generalised advantages, in (0, 1]."""
    normalise_observations: bool = True
    """Shift and scale observations by their mean and deviation, which are saved with the policy."""
    normalise_steps: int = 100_000
    """Environment steps that mean and deviation are taken from. While these move, so does the policy, and not
    by the choice of the update."""

    def __post_init__(self) -> None:
        check_fields(self, unit_interval=("gae_lambda", "cost_gae_lambda"), at_least_one=("normalise_steps",))
        if not 0.0 < self.gamma < 1.0:
            raise ValueError(f"gamma must be in (0, 1) because time limits bootstrap, got {self.gamma}")

    @property
    def uses_threshold(self) -> bool:
        """On-policy algorithms compare measured episode costs with the limit itself."""
        return False


@dataclass(frozen=True, kw_only=True)
class TrustRegionConfig(OnpolicyConfig):
    """The trust region of TRPO and CPO: its size, how the step is solved for and how far it is taken."""

    kl_bound: float = 0.01
    """Mean KL divergence that an update may reach, in nats."""
    cg_iterations: int = 15
    """Conjugate gradient steps towards a product with the inverse Fisher matrix, at most."""
    cg_damping: float = 0.1
    """Added to the Fisher matrix's diagonal."""
    fisher_fraction: float = 1.0
    """Share of the states that the Fisher matrix is averaged over, evenly spaced, in (0, 1]."""
    max_backtracks: int = 20
    """Shorter steps tried after the full one, at most."""
    backtrack_factor: float = 0.8
    """Length of each shorter step relative to the one before, in (0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            positive=("kl_bound",),
            non_negative=("cg_damping", "max_backtracks"),
            unit_interval=("fisher_fraction",),
            at_least_one=("cg_iterations",),
        )
        if not 0.0 < self.backtrack_factor < 1.0:
            raise ValueError(f"backtrack_factor must be in (0, 1), got {self.backtrack_factor}")
