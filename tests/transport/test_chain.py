"""The chain of JKO actors on a one-dimensional bandit whose best action is known, and by hand."""

import copy

import pytest
import torch
from torch import nn

from gcrl_gym.errors import UserError
from gcrl_gym.networks import (
    DeterministicPolicy,
    GaussianPolicy,
    TanhGaussianPolicy,
    TransportMap,
)
from gcrl_gym.transport.jko import Chain, policy_w2

POLICIES = {
    "deterministic": DeterministicPolicy,
    "gaussian": GaussianPolicy,
    "tanh gaussian": TanhGaussianPolicy,
    "transport map": TransportMap,
}
BEST = 0.5


class Host:
    """What a chain needs of an agent."""

    def __init__(self, action_dim=1):
        self.action_dim, self.networks = action_dim, {}

    def add_network(self, name, make):
        self.networks[name] = make()
        return self.networks[name]

    def add_target(self, name, network):
        self.networks[name] = copy.deepcopy(network).requires_grad_(False)
        return self.networks[name]

    def add_optimizer(self, name, *networks, rate=None):
        parameters = [p for network in networks for p in network.parameters()]
        return torch.optim.Adam(parameters, lr=rate or 1e-2)


def bandit(policy, inputs, noise):
    """Energy -Q with Q = -(a - BEST)^2."""
    q = -(policy.sample(inputs, noise) - BEST).square().sum(-1)
    return -q, q


def train(first, weights, updates=400, energy=bandit, **options):
    torch.manual_seed(0)
    chain = Chain(Host(), first, weights, **options)
    inputs = torch.zeros(64, 1)
    for _ in range(updates):
        noise = {name: torch.randn(shape) for name, shape in chain.noise_shapes(64).items()}
        metrics = chain.update(inputs, energy, noise)
    return chain, metrics


@torch.no_grad()
def law(policy):
    """Mean and standard deviation of a policy's actions."""
    generator = torch.Generator().manual_seed(1)
    actions = policy.sample(torch.zeros(4000, 1), torch.randn(4000, 1, generator=generator))
    return actions.mean().item(), actions.std().item()


def make(name):
    torch.manual_seed(3)
    policy = POLICIES[name](1, 1, (16, 16))
    if name == "gaussian":
        with torch.no_grad():
            policy.log_std.fill_(-1.0)
    return policy


@pytest.mark.parametrize("name", POLICIES)
def test_without_weight_the_best_action_is_found(name):
    first = make(name)
    chain, metrics = train(first, (0.0,))
    mean, spread = law(chain.actors[1])
    assert mean == pytest.approx(BEST, abs=0.05)
    assert spread < 0.2
    assert metrics["actor_1/w2"] > 0
    assert law(first) == law(make(name))  # actor 0 is not trained by its successors


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("w2", ["sinkhorn", "exact"])
def test_with_a_huge_weight_nothing_moves(name, w2):
    first = make(name)
    chain, _ = train(first, (1e4,), updates=200, w2=w2, w2_noise="shared")
    mean, spread = law(chain.actors[1])
    expected = law(first)
    assert mean == pytest.approx(expected[0], abs=0.02)
    assert spread == pytest.approx(expected[1], abs=0.02)


def test_independent_noise_keeps_the_mean_and_shrinks_the_spread():
    """The known bias of few independent samples: it is the published form, and it is logged."""
    first = make("tanh gaussian")
    chain, metrics = train(first, (1e4,), 1000, K=4, w2_noise="independent", learning_rate=1e-3)
    mean, spread = law(chain.actors[1])
    expected = law(first)
    assert mean == pytest.approx(expected[0], abs=0.05)
    assert spread < 0.9 * expected[1]
    assert metrics["actor_1/spread"] == pytest.approx(spread, rel=0.3)


def test_a_chain_of_point_masses_walks_in_closed_form():
    first = make("deterministic")
    start = law(first)[0]
    chain, _ = train(first, (1.0, 1.0, 1.0), updates=1500)
    expected = start
    for actor in chain.actors[1:]:
        expected = (BEST + expected) / 2
        assert law(actor)[0] == pytest.approx(expected, abs=0.01)


def test_actors_see_their_predecessor_as_already_updated():
    """Gauss-Seidel: by hand, with plain gradient steps on one parameter each."""
    first = make("deterministic")
    chain = Chain(Host(), first, (0.3, 0.7))
    twins = copy.deepcopy(chain.actors)
    inputs, noise = torch.randn(8, 1), {f"actor_{i}": torch.randn(8, 1) for i in (1, 2)}
    optimizers = [torch.optim.Adam(twin.parameters(), lr=1e-2) for twin in twins]
    for _ in range(3):
        chain.update(inputs, bandit, noise)
        for i, weight in ((1, 0.3), (2, 0.7)):
            action = twins[i].mode(inputs)
            with torch.no_grad():
                before = twins[i - 1].mode(inputs)
            loss = ((action - BEST) ** 2).mean() + weight * ((action - before) ** 2).mean()
            optimizers[i].zero_grad()
            loss.backward()
            optimizers[i].step()
    for actor, twin in zip(chain.actors, twins):
        for found, expected in zip(actor.parameters(), twin.parameters()):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_the_reference_may_be_a_moving_average():
    first = make("deterministic")
    chain = Chain(Host(), first, (0.3, 0.7), reference="target", tau=0.25)
    twins, averages = copy.deepcopy(chain.actors), copy.deepcopy(chain.actors[:-1])
    inputs, noise = torch.randn(8, 1), {f"actor_{i}": torch.randn(8, 1) for i in (1, 2)}
    optimizers = [torch.optim.Adam(twin.parameters(), lr=1e-2) for twin in twins]
    for _ in range(3):
        chain.update(inputs, bandit, noise)
        for i, weight in ((1, 0.3), (2, 0.7)):
            before = averages[i - 1].mode(inputs).detach()
            action = twins[i].mode(inputs)
            loss = ((action - BEST) ** 2).mean() + weight * ((action - before) ** 2).mean()
            optimizers[i].zero_grad()
            loss.backward()
            optimizers[i].step()
        for average, twin in zip(averages, twins):
            for slow, fast in zip(average.parameters(), twin.parameters()):
                slow.data = 0.75 * slow.data + 0.25 * fast.data
    for found, expected in zip(chain.actors[2].parameters(), twins[2].parameters()):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    for found, expected in zip(chain.targets[1].parameters(), averages[1].parameters()):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_earlier_actors_do_not_depend_on_later_ones():
    def run(weights):
        chain = Chain(Host(), make("transport map"), weights)
        generators = {}
        for _ in range(5):
            noise = {}
            for name, shape in chain.noise_shapes(16).items():
                generator = generators.setdefault(
                    name, torch.Generator().manual_seed(hash(name) % 999)
                )
                noise[name] = torch.randn(shape, generator=generator)
            chain.update(torch.zeros(16, 1), bandit, noise)
        return chain.actors

    for short, long in zip(run((0.1, 0.2)), run((0.1, 0.2, 0.3))):
        for one, other in zip(short.parameters(), long.parameters()):
            assert torch.equal(one, other)


def test_critics_get_no_gradient_and_every_parameter_moves():
    critic = nn.Linear(2, 1)

    def energy(policy, inputs, noise):
        q = critic(torch.cat([inputs, policy.sample(inputs, noise)], -1)).squeeze(-1)
        return -q, q

    for name in POLICIES:
        chain = Chain(Host(), make(name), (0.5, 0.5))
        before = copy.deepcopy(chain.actors)
        inputs = torch.randn(32, 1)
        for _ in range(2):  # at the first step the distance of a copy has no gradient
            noise = {k: torch.randn(s) for k, s in chain.noise_shapes(32).items()}
            metrics = chain.update(inputs, energy, noise)
        assert critic.weight.grad is None
        assert metrics["actor_2/gradient_norm"] > 0
        for actor, old in list(zip(chain.actors, before))[1:]:
            for now, then in zip(actor.parameters(), old.parameters()):
                assert not torch.equal(now, then), name


def test_lambda_divides_by_the_mean_magnitude_of_q():
    def scaled(factor):
        return lambda policy, inputs, noise: tuple(
            factor * x for x in bandit(policy, inputs, noise)
        )

    one, metrics = train(make("deterministic"), (0.5,), 5, scaled(1.0), normalize_energy=True)
    other, scaled_metrics = train(
        make("deterministic"), (0.5,), 5, scaled(1e3), normalize_energy=True
    )
    for a, b in zip(one.actors[1].parameters(), other.actors[1].parameters()):
        torch.testing.assert_close(a, b)
    assert metrics["actor_1/lambda"] == pytest.approx(1e3 * scaled_metrics["actor_1/lambda"].item())


# The distance by kinds ------------------------------------------------------------------------


def test_the_three_distances_agree_on_the_same_pair():
    """Gaussians narrow enough not to be cut off: closed form, samples, and both by the mean."""
    torch.manual_seed(0)
    a, b = GaussianPolicy(1, 2, (8,)), GaussianPolicy(1, 2, (8,))
    with torch.no_grad():
        for policy, shift, log_std in ((a, 0.2, -3.0), (b, -0.2, -2.5)):
            policy.mean[-1].weight.mul_(0.1)
            policy.mean[-1].bias.fill_(shift)
            policy.log_std.fill_(log_std)
    inputs = torch.randn(4, 1)
    noise, other = torch.randn(4, 512, 2), torch.randn(4, 512, 2)
    closed = policy_w2(a, b, inputs, noise, other)

    class Sampled(GaussianPolicy):
        kind = "stochastic"

    samples = [copy.deepcopy(policy) for policy in (a, b)]
    for policy in samples:
        policy.__class__ = Sampled
    assert policy_w2(*samples, inputs, noise, other).item() == pytest.approx(
        closed.item(), rel=0.05
    )
    point = DeterministicPolicy(1, 2, (8,))
    to_point = policy_w2(a, point, inputs, noise, other)
    sampled = policy_w2(samples[0], point, inputs, noise, other)
    assert sampled.item() == pytest.approx(to_point.item(), rel=0.05)


def test_distance_to_a_point_mass_is_the_mean_squared_distance():
    torch.manual_seed(0)
    point, cloud = DeterministicPolicy(2, 3, (8,)), TransportMap(2, 3, (8,))
    inputs, noise = torch.randn(5, 2), torch.randn(5, 6, 3)
    expected = ((cloud.samples(inputs, noise) - point.mode(inputs)[:, None]) ** 2).sum(-1).mean()
    torch.testing.assert_close(policy_w2(point, cloud, inputs, noise, noise), expected)
    torch.testing.assert_close(policy_w2(cloud, point, inputs, noise, noise), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"w2_weights": 10.0}, r"give one per actor, as \(10.0,\)"),
        ({"w2_weights": (-1.0,)}, r"w2_weights\[0\] is -1.0"),
        ({"w2_weights": (float("nan"),)}, r"w2_weights\[0\] is nan"),
        (
            {"w2_weights": (1.0, 1.0), "learning_rate": (1e-3,)},
            "has 1 entries; give one",
        ),
        ({"w2_weights": (1.0,), "learning_rate": 0.0}, "learning rates must be > 0"),
        ({"w2_weights": (1.0,), "w2": "exact", "K": 7}, "at most 6 samples"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        Chain(Host(), make("transport map"), **options)


def test_no_weights_is_the_plain_algorithm():
    host = Host()
    chain = Chain(host, make("gaussian"), ())
    assert host.num_actors == 1
    assert chain.noise_shapes(4) == {}
    assert chain.update(torch.zeros(4, 1), bandit, {}) == {}
