"""CQL's update against the published formulas, and a test per known trap."""

import math

import numpy as np
import pytest
import torch

from gcrl_gym.agents import CQL
from gcrl_gym.errors import UserError
from tests.agents.reference import (
    SMALL,
    Reference,
    clone,
    draw,
    each,
    goal_data,
    plain_dataset,
    sinkhorn_w2,
)

FEW = SMALL | {"num_actions": 3}


def prepare(agent):
    """A batch, for weights large enough to matter, alpha unlike 1 and a target unlike its critic.

    The published starting weights make all Q values nearly 0 and the policy the same everywhere.
    """
    batch = draw(agent, scale=1.5)
    with torch.no_grad():
        for actor in agent.chain.actors:
            actor.mean_head.weight.mul_(50)
            actor.log_std_head.weight.mul_(50)
        agent.critic.stack.weights[-1].mul_(100)
        agent.critic_target.stack.weights[-1].mul_(80)
        agent.alpha.log_alpha.fill_(-0.5)
    return batch


def before_tanh(ref, i, inputs):
    """Mean and standard deviation of actor i's normal distribution."""
    hidden = ref.mlp(f"actor_{i}.trunk.0", inputs).clamp_min(0)
    mean, raw = (
        hidden @ ref[f"actor_{i}.{head}.weight"].T + ref[f"actor_{i}.{head}.bias"]
        for head in ("mean_head", "log_std_head")
    )
    if f"actor_{i}.scale" in ref.state:
        raw = ref[f"actor_{i}.scale"][0] * raw + ref[f"actor_{i}.scale"][1]
    return mean, raw.clip(-20, 2).exp()


def density(mean, std, u):
    """log N(u) - log |da/du| of a = tanh(u)."""
    normal = -((u - mean) ** 2) / (2 * std**2) - std.log() - math.log(2 * math.pi) / 2
    return (normal - torch.log(1 - torch.tanh(u) ** 2)).sum(-1)


def sample(ref, i, inputs, noise):
    """Action and log density."""
    mean, std = before_tanh(ref, i, inputs)
    u = mean + std * noise
    return torch.tanh(u), density(mean, std, u)


def of_data(ref, i, inputs, actions):
    mean, std = before_tanh(ref, i, inputs)
    return density(mean, std, torch.atanh(actions.clip(-1 + 1e-6, 1 - 1e-6)))


def imitation_or_value(ref, i, asked, noise, batch, imitate):
    """What actor i earns besides entropy, and its log density."""
    actions, log_prob = sample(ref, i, asked, noise)
    if imitate:
        return of_data(ref, i, asked, batch.actions), log_prob
    return ref.q("critic", asked, actions).min(0).values, log_prob


def backup(ref, there, noise, alpha, entropy):
    """Value of the next state: the first sample's, or the best of several."""
    options = []
    for k in range(noise.shape[1]):
        actions, log_prob = sample(ref, 0, there, noise[:, k])
        options.append((ref.q("critic_target", there, actions).min(0).values, log_prob))
    values, log_probs = (torch.stack(column, 1) for column in zip(*options))
    best = values.argmax(1)
    rows = torch.arange(len(values))
    return (values[rows, best] - entropy * alpha * log_probs[rows, best]).detach()


def conservative(ref, here, there, batch, j, sampling, temperature):
    """logsumexp over the samples of critic j, [B]."""
    noise, width = batch.noise, batch.actions.shape[1]
    terms = []
    for k in range(noise["random"].shape[1]):
        uniform = torch.distributions.Normal(0.0, 1.0).cdf(noise["random"][:, k]) * 2 - 1
        drawn = [(uniform, torch.tensor(math.log(0.5**width)))]
        drawn += [sample(ref, 0, here, noise["current"][:, k])]
        drawn += [sample(ref, 0, there, noise["following"][:, k])]
        for actions, log_prob in drawn:
            # Actions of the next state's policy are judged at the state itself.
            terms.append(ref.q("critic", here, actions.detach())[j] - sampling * log_prob.detach())
    if not sampling:
        terms.append(ref.q("critic", here, batch.actions)[j])
    return temperature * torch.log(sum(torch.exp(term / temperature) for term in terms))


def reference_update(
    ref, batch, weights=(), cql_alpha=10.0, importance_sampling=True, temperature=1.0,
    lagrange=False, target_gap=0.8, max_target_backup=False, backup_entropy=False, min_gap=None,
    bc_steps=0, policy_learning_rate=3e-5, target_entropy=None, discount=0.99, tau=0.005,
):  # fmt: skip
    here = torch.cat([batch.observations, batch.goals], -1)
    there = torch.cat([batch.next_observations, batch.goals], -1)
    asked = torch.cat([batch.observations, batch.actor_goals], -1)
    width, imitate = batch.actions.shape[1], bc_steps > 0
    alpha = ref["alpha.log_alpha"].exp().detach()
    assert batch.noise["next"].shape[1] == (3 if max_target_backup else 1)

    # All losses, on the weights as they are.
    earned, log_prob = imitation_or_value(ref, 0, asked, batch.noise["actor"], batch, imitate)
    wanted = -width if target_entropy is None else target_entropy
    alpha_loss = -(ref["alpha.log_alpha"] * (log_prob + wanted).detach()).mean()
    actor_loss = (alpha * log_prob - earned).mean()
    next_value = backup(ref, there, batch.noise["next"], alpha, backup_entropy)
    target = batch.rewards + discount * (1 - batch.terminated) * next_value
    q = ref.q("critic", here, batch.actions)
    critic_loss = ((q[0] - target) ** 2).mean() + ((q[1] - target) ** 2).mean()
    gaps = []
    for j in (0, 1):
        gap = conservative(ref, here, there, batch, j, importance_sampling, temperature) - q[j]
        if min_gap is not None:
            gap = torch.maximum(gap, torch.tensor(min_gap, dtype=gap.dtype))
        gaps.append(gap.mean())
    if lagrange:
        multiplier = ref["multiplier.log_alpha"].exp().clip(0, 1e6)
        terms = [multiplier * cql_alpha * (gap - target_gap) for gap in gaps]
        ref.step("multiplier", (-terms[0] - terms[1]) * 0.5)
        terms = [multiplier.detach() * cql_alpha * (gap - target_gap) for gap in gaps]
    else:
        terms = [cql_alpha * gap for gap in gaps]
    critic_loss = critic_loss + terms[0] + terms[1]

    ref.step("alpha", alpha_loss.squeeze(), lr=policy_learning_rate)
    ref.step("actor_0", actor_loss, lr=policy_learning_rate)
    ref.step("critic", critic_loss.squeeze())
    ref.soft_update("critic_target", "critic", tau)

    alpha = ref["alpha.log_alpha"].exp().detach()
    for i, w in enumerate(weights, 1):
        noise = batch.noise
        earned, log_prob = imitation_or_value(ref, i, asked, noise[f"actor_{i}"], batch, imitate)
        before = each(noise[f"reference_{i}"], lambda z, i=i: sample(ref, i - 1, asked, z)[0])
        own = each(noise[f"samples_{i}"], lambda z, i=i: sample(ref, i, asked, z)[0])
        loss = (alpha * log_prob - earned).mean() + w * sinkhorn_w2(own, before)
        ref.step(f"actor_{i}", loss, lr=policy_learning_rate)


@pytest.mark.parametrize("weights", [(), (0.3, 0.7)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"importance_sampling": False, "temperature": 2.0, "discount": 0.9, "tau": 0.1},
        {"importance_sampling": False, "min_gap": 1.9},
        {"lagrange": True, "cql_alpha": 5.0, "min_gap": -200.0, "policy_learning_rate": 1e-4},
        {"lagrange": True, "target_gap": 9.0, "max_target_backup": True},
        {"backup_entropy": True, "target_entropy": 0.7},
        {"backup_entropy": True, "max_target_backup": True},
        {"bc_steps": 1},
    ],
    ids=str,
)
def test_update_equals_the_formulas(weights, options):
    agent = CQL(None, plain_dataset(), w2_weights=weights, seed=0, **FEW, **options)
    batch = prepare(agent)
    ref = Reference(agent)
    reference_update(ref, clone(batch), weights, **options)
    agent.update(batch)
    ref.agree(agent)


def test_update_equals_the_formulas_with_goals():
    agent = CQL(*goal_data(), w2_weights=(0.3,), seed=1, **FEW)
    batch = prepare(agent)
    assert not torch.equal(batch.goals, batch.actor_goals)
    ref = Reference(agent)
    reference_update(ref, clone(batch), (0.3,))
    agent.update(batch)
    ref.agree(agent)


def test_batches_that_pass_the_critics_in_parts_give_the_gradient_of_the_whole():
    agent = CQL(None, plain_dataset(), lagrange=True, seed=0, **FEW | {"batch_size": 150})
    batch = prepare(agent)
    ref = Reference(agent)
    reference_update(ref, clone(batch), lagrange=True)
    agent.update(batch)
    ref.agree(agent)


def test_imitation_ends_after_its_updates():
    options = {"bc_steps": 5, "w2_weights": (0.3,), "seed": 0}
    agent = CQL(None, plain_dataset(), **options, **FEW).learn(5)
    agent.optimizers = {name: torch.optim.Adam(o.param_groups[0]["params"], lr=0.0)
                        for name, o in agent.optimizers.items()}  # fmt: skip
    assert "actor_1/lambda" in agent.update(agent.draw_batch())
    policy, batch = agent.chain.actors[1], agent.draw_batch()
    asked, noise = batch.observations, batch.noise["actor_1"]
    with torch.no_grad():
        actions, log_prob = policy.sample_with_log_prob(asked, noise)
        entropy = agent.alpha() * log_prob
        q = agent.critic(asked, actions).amin(0)
        cost, values = agent.energy_of(policy, asked, noise, batch)
        torch.testing.assert_close(cost, entropy - q)
        torch.testing.assert_close(values, q)
        agent._n_updates = 4  # the last one that imitates
        cost, values = agent.energy_of(policy, asked, noise, batch)
        torch.testing.assert_close(cost, entropy - policy.log_prob(asked, batch.actions))
        assert values.eq(1).all()  # no action values to scale by


@pytest.mark.slow
def test_compiled_update_equals_eager():
    """Two losses of one compiled graph cannot be stepped one after the other."""
    agents = [CQL(None, plain_dataset(), lagrange=True, seed=0, **FEW) for _ in range(2)]
    updates = [torch.compile(agents[0].update, backend="aot_eager"), agents[1].update]
    for agent, update in zip(agents, updates):
        for _ in range(2):
            update(agent.draw_batch())
    compiled, eager = (agent.policy.state_dict() for agent in agents)
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, msg=name)


def test_imitation_raises_the_density_of_the_datas_actions():
    """The reference's log density ignores the actions that it is asked for."""
    agent = CQL(None, plain_dataset(), bc_steps=300, policy_learning_rate=3e-3, seed=0, **FEW)
    batch = agent.draw_batch()

    def likelihood():
        with torch.no_grad():
            return float(agent.actor.log_prob(batch.observations, batch.actions).mean())

    before = likelihood()
    agent.learn(100)
    assert likelihood() > before + 0.1


def test_the_multiplier_grows_while_the_gap_is_above_its_target():
    for gap, sign in ((0.0, 1), (100.0, -1)):
        agent = CQL(None, plain_dataset(), lagrange=True, target_gap=gap, seed=0, **FEW)
        start = float(agent.multiplier.log_alpha.detach())
        assert start == pytest.approx(1.0)
        agent.learn(3)
        assert sign * (float(agent.multiplier.log_alpha.detach()) - start) > 0


def test_starting_weights_are_the_references():
    agent = CQL(None, plain_dataset(), seed=0)
    for weight in agent.critic.stack.weights[1:-1]:  # orthogonal, gain sqrt(2)
        for member in weight:
            torch.testing.assert_close(member @ member.T, 2 * torch.eye(256), atol=1e-4, rtol=0)
    assert all(float(bias.detach().abs().max()) == 0 for bias in agent.critic.stack.biases)
    last = agent.critic.stack.weights[-1].detach()
    torch.testing.assert_close(last.norm(dim=1).flatten(), torch.full((2,), 0.01))
    bound = 0.01 * math.sqrt(6 / (256 + 4))  # Xavier's of one layer for both heads
    for head in (agent.actor.mean_head, agent.actor.log_std_head):
        assert 0.9 * bound < float(head.weight.detach().abs().max()) <= bound
        assert float(head.bias.detach().abs().max()) == 0
    assert agent.actor.scale.tolist() == [1, -1]
    assert float(agent.alpha().detach()) == 1


def test_settings_are_those_of_the_published_configurations():
    agent = CQL(None, plain_dataset(), w2_weights=(1.0,))
    assert agent.hidden_sizes == (256, 256, 256)
    assert agent.normalize
    rates = {name: o.param_groups[0]["lr"] for name, o in agent.optimizers.items()}
    assert rates == {"critic": 3e-4, "actor_0": 3e-5, "alpha": 3e-5, "actor_1": 3e-5}
    assert not any((agent.backup_entropy, agent.lagrange, agent.max_target_backup))
    assert agent.noise_shapes(256)["random"] == (256, 10, 2)


@pytest.mark.parametrize("options", [{}, {"bc_steps": 9, "lagrange": True}])
def test_every_parameter_moves_at_once(options):
    agent = CQL(None, plain_dataset(), w2_weights=(0.5, 0.0), seed=0, **FEW, **options)
    before = {name: p.clone() for name, p in agent.policy.networks.named_parameters()}
    metrics = agent.update(agent.draw_batch())
    still = [n for n, p in agent.policy.networks.named_parameters() if p.equal(before[n])]
    assert not still
    assert all(float(metrics[f"actor_{i}/gradient_norm"]) > 0 for i in (1, 2))


@pytest.mark.parametrize("actor", [0, 1])
def test_sampled_actions_differ(actor):
    agent = CQL(None, plain_dataset(), w2_weights=(1.0,), seed=0, **FEW)
    state = np.zeros(3, np.float32)
    samples = [agent.predict(state, actor=actor)[0] for _ in range(2)]
    assert not np.array_equal(*samples)
    means = [agent.predict(state, actor=actor, deterministic=True)[0] for _ in range(2)]
    assert np.array_equal(*means)


@pytest.mark.parametrize("chain_policy", ["deterministic", "gaussian", "transport_map"])
def test_chains_of_other_classes(chain_policy):
    """A class without density has log pi = 0; the Gaussian can imitate."""
    options = {"w2_weights": (0.3,), "chain_policy": chain_policy, "seed": 0}
    agent = CQL(None, plain_dataset(), **options, **FEW)
    batch = agent.draw_batch()
    policy, noise = agent.chain.actors[1], batch.noise["actor_1"]
    cost, q = agent.energy_of(policy, batch.observations, noise, batch)
    if chain_policy != "gaussian":
        assert torch.equal(cost, -q)
    assert math.isfinite(float(agent.update(batch)["actor_1/energy"]))
    if chain_policy == "gaussian":
        CQL(None, plain_dataset(), bc_steps=2, **options, **FEW).learn(3)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"cql_alpha": -1.0}, r"cql_alpha is -1.0; .* >= 0"),
        ({"temperature": 0.0}, r"temperature is 0.0; .* > 0"),
        ({"num_actions": 0}, "num_actions is 0; .* at least 1"),
        ({"bc_steps": -3}, "bc_steps is -3; .* at least 0"),
        ({"bc_steps": 2.5}, "bc_steps is 2.5"),
        ({"policy_learning_rate": 0.0}, "policy_learning_rate is 0.0"),
        ({"w2_weights": (1.0, -2.0)}, r"w2_weights\[1\] is -2.0"),
        (
            {"bc_steps": 5, "w2_weights": (1.0,), "chain_policy": "transport_map"},
            "bc_steps is 5, but chain_policy 'transport_map' has no density .* 'gaussian'",
        ),
        (
            {"bc_steps": 5, "w2_weights": (1.0,), "chain_policy": "deterministic"},
            "chain_policy 'deterministic' has no density",
        ),
    ],
)
def test_wrong_options_are_named(keywords, words):
    with pytest.raises(UserError, match=words):
        CQL(None, plain_dataset(), **(SMALL | keywords))
