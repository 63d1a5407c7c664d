"""Transport between policies: squared W2 distances and the chain of actors built on them."""

from gcrl_gym.transport.wasserstein import exact_w2, gaussian_w2, sinkhorn_w2, squared_l2

__all__ = ["exact_w2", "gaussian_w2", "sinkhorn_w2", "squared_l2"]
