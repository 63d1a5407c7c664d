"""HIQL's update against the published formulas, and a test per known trap."""

import io
import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from gcrl_gym.agents import HIQL
from gcrl_gym.datasets.samplers import GoalSampler, TransitionSampler
from gcrl_gym.datasets.subgoals import SubgoalSampler
from gcrl_gym.errors import UserError
from tests.agents.reference import (
    SMALL,
    Reference,
    clone,
    cropped,
    draw,
    gelu,
    goal_data,
    impala,
    picture_data,
    plain_dataset,
    stir,
)

PICTURES = {"pictures": ((8, 8, 3),) * 2, "places": ((8, 8, 3),), "discrete": ((8, 8, 3),) * 2}
DATA = {
    "continuous": goal_data,
    "pictures": lambda: (None, picture_data()),
    "places": lambda: (None, picture_data(vector_goals=True)),
    "discrete": lambda: (None, picture_data(discrete=True)),
}


def made(data="continuous", size=0.1, **keywords):
    """An agent whose weights are all apart, targets too, and a batch, both float64."""
    if data == "places":  # judged without an environment
        law = {"actor": "auto", "support": "ogbench", "reward": "index", "steps": 7}
        keywords["sampler"] = SubgoalSampler(**law)
    agent = HIQL(*DATA[data](), seed=0, **(SMALL | {"subgoal_steps": 7} | keywords))
    batch = draw(agent, scale=1.5)
    stir(agent, size)
    return agent, batch


def layers(ref, prefix, inputs):
    """An MLP with layer normalisation behind each activation, if it has any."""
    linear = [n[: -len(".weight")] for n in ref.names(prefix) if ref[n].dim() == 2]
    linear.sort(key=lambda name: int(name.split(".")[-1]))
    for name in linear:
        inputs = inputs @ ref[f"{name}.weight"].T + ref[f"{name}.bias"]
        if name == linear[-1]:
            return inputs
        inputs = gelu(inputs)
        norm_name = f"{prefix}.{int(name.split('.')[-1]) + 2}"
        if f"{norm_name}.weight" in ref.state and ref[f"{norm_name}.weight"].dim() == 1:
            mean = inputs.mean(-1, keepdim=True)
            inputs = inputs - mean
            inputs = inputs / ((inputs**2).mean(-1, keepdim=True) + 1e-6).sqrt()
            inputs = inputs * ref[f"{norm_name}.weight"] + ref[f"{norm_name}.bias"]


class Hierarchy:
    """The functions of the paper on copied weights; ``pictures`` as of `impala`."""

    def __init__(self, ref, pictures=()):
        self.ref, self.pictures = ref, pictures

    def phi(self, s, g):
        inputs, name = torch.cat([s, g], -1), "phi"
        if self.pictures:
            inputs, name = impala(self.ref, "phi.0", inputs, self.pictures), "phi.1"
        found = layers(self.ref, name, inputs)
        return found / found.norm(dim=-1, keepdim=True) * math.sqrt(found.shape[-1])

    def v(self, network, s, g):
        """Both heads of a value network on the one phi that there is, [2, B]."""
        seen = torch.cat([s, self.phi(s, g)], -1)
        if self.pictures:
            seen = impala(self.ref, f"{network}.encoder", seen, self.pictures[:1])
        return self.ref.q(network, seen, seen[:, :0], gelu)

    def policy(self, head, inputs, pictures):
        if pictures:
            inputs, head = impala(self.ref, f"{head}.0", inputs, pictures), f"{head}.1"
        return self.ref.mlp(head, inputs, gelu)

    def low(self, s, subgoal, discrete=False):
        head = "low_actor.logits" if discrete else "low_actor.mean"
        return self.policy(head, torch.cat([s, subgoal], -1), self.pictures[:1])

    def high(self, s, g):
        return self.policy("high_actor.mean", torch.cat([s, g], -1), self.pictures)


def log_normal(mean, std, actions):
    return (-(((actions - mean) / std) ** 2) / 2 - std.log() - math.log(2 * math.pi) / 2).sum(-1)


def reference_losses(
    ref, batch, pictures=(), low_alpha=3.0, high_alpha=3.0, expectile=0.7, discount=0.99,
    rep_grad=None,
):  # fmt: skip
    """The three published losses, and those of the two fitted scales."""
    h = Hierarchy(ref, pictures)
    s, after, g, w = batch.observations, batch.next_observations, batch.goals, batch.subgoals
    mask, discrete = 1 - batch.terminated, not batch.actions.is_floating_point()
    following = h.v("value_target", after, g)
    q = batch.rewards + discount * mask * torch.minimum(*following)
    advantage = q - h.v("value_target", s, g).mean(0)
    weight = torch.where(advantage >= 0, expectile, 1 - expectile).detach()
    value_loss = 0.0
    for head, then in zip(h.v("value", s, g), following):
        target = (batch.rewards + discount * mask * then).detach()
        value_loss = value_loss + (weight * (target - head) ** 2).mean()

    rise = (h.v("value", after, w).mean(0) - h.v("value", s, w).mean(0)).detach()
    weight = (low_alpha * rise).exp().clip(max=100)
    subgoal = h.phi(s, w)
    if not (bool(pictures) if rep_grad is None else rep_grad):
        subgoal = subgoal.detach()
    output, low_scale = h.low(s, subgoal, discrete), 0.0
    if discrete:
        log_prob = torch.log_softmax(output, -1)[torch.arange(len(output)), batch.actions]
    else:
        log_prob = log_normal(output, torch.ones(2), batch.actions)
        std = ref["low_actor.log_std"].exp()
        low_scale = -log_normal(output.detach(), std, batch.actions).mean()
    low_loss = -(weight * log_prob).mean()

    ahead, asked = batch.target_observations, batch.actor_goals
    rise = (h.v("value", ahead, asked).mean(0) - h.v("value", s, asked).mean(0)).detach()
    weight = (high_alpha * rise).exp().clip(max=100)
    proposal, wanted = h.high(s, asked), h.phi(s, batch.target_goals).detach()
    high_loss = -(weight * log_normal(proposal, torch.ones_like(proposal), wanted)).mean()
    std = ref["high_actor.log_std"].exp()
    high_scale = -log_normal(proposal.detach(), std, wanted).mean()
    return value_loss, low_loss, high_loss, low_scale, high_scale


def agreement(agent, batch, data="continuous", tau=0.005, before=None, pictures=None, **options):
    """Compare losses, weights and gradients of one update."""
    ref = Reference(agent)
    pictures = PICTURES.get(data, ()) if pictures is None else pictures
    losses = reference_losses(ref, before or clone(batch), pictures, **options)
    value_loss, low_loss, high_loss, low_scale, high_scale = losses
    ref.soft_update("value_target", "value", tau)
    if agent.reaches_phi:
        ref.step(["value", "phi", "low_actor"], value_loss + low_loss + low_scale)
    else:
        ref.step(["value", "phi"], value_loss)
        ref.step("low_actor", low_loss + low_scale)
    ref.step("high_actor", high_loss + high_scale)
    metrics = agent.update(batch)
    ref.agree(agent)
    for name, loss in zip(("value_loss", "low/actor_loss", "high/actor_loss"), losses):
        torch.testing.assert_close(metrics[name], loss.detach(), rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"low_alpha": 10.0, "discount": 0.9},
        {"high_alpha": 10.0, "rep_dim": 4},
        {"low_alpha": 0.0, "high_alpha": 0.0},
        {"expectile": 0.9, "tau": 0.1},  # the targets follow the weights before the step
        {"layer_norm": False},
        {"low_actor_rep_grad": True},
    ],
    ids=str,
)
def test_update_equals_the_formulas(options):
    agent, batch = made(**options)
    assert 0 < batch.terminated.sum() < len(batch.terminated)
    assert not torch.equal(batch.goals, batch.actor_goals)
    assert not torch.equal(batch.subgoals, batch.target_goals)
    for name in ("layer_norm", "rep_dim"):  # the reference reads them off the weights
        options.pop(name, None)
    agreement(agent, batch, rep_grad=options.pop("low_actor_rep_grad", None), **options)


@pytest.mark.parametrize("rep_grad", [None, False])
@pytest.mark.parametrize("data", ["pictures", "places", "discrete"])
def test_update_equals_the_formulas_on_pictures_and_with_discrete_actions(data, rep_grad):
    options = {} if rep_grad is None else {"low_actor_rep_grad": rep_grad}
    agreement(*made(data, size=0.03, **options), data, rep_grad=rep_grad)


def test_pictures_without_an_encoder_are_numbers():
    agent, batch = made("pictures", size=0.03, encoder="none")
    agreement(agent, batch, pictures=(), rep_grad=True)


def test_pictures_are_cropped_before_the_update():
    agent, batch = made("pictures", size=0.03, p_aug=1.0)
    moved = clone(batch)
    shifts = np.floor(7 * norm.cdf(batch.noise["crop"].numpy())).astype(int)
    for name in ("observations", "next_observations", "target_observations", "goals",
                 "actor_goals", "subgoals", "target_goals"):  # fmt: skip
        setattr(moved, name, cropped(getattr(batch, name), shifts))
    agreement(agent, batch, "pictures", before=moved)


def test_weights_are_cut_off_at_100():
    agent, batch = made(size=0.5, low_alpha=400.0, high_alpha=400.0)
    h = Hierarchy(Reference(agent))
    for start, end, goal in (
        (batch.observations, batch.next_observations, batch.subgoals),
        (batch.observations, batch.target_observations, batch.actor_goals),
    ):
        rise = h.v("value", end, goal).mean(0) - h.v("value", start, goal).mean(0)
        assert 0 < float(((400 * rise.detach()).exp() > 100).double().mean()) < 1
    agreement(agent, batch, low_alpha=400.0, high_alpha=400.0)


# --------------------------------------------------------------------------------------- traps


def test_there_is_one_representation_and_no_average_of_it():
    """The target value function has heads of its own, on the phi that is being learned."""
    agent, batch = made()
    assert set(agent.policy.networks) == {
        "phi", "value", "value_target", "low_actor", "high_actor"
    }  # fmt: skip
    old = [p.detach().clone() for p in agent.phi.parameters()]
    agent.update(batch)
    assert all(not a.equal(b) for a, b in zip(old, agent.phi.parameters()))
    agreement(*made())  # whose reference has the one phi only


def test_representations_have_the_length_of_their_width():
    agent, batch = made(rep_dim=6)
    found = agent.represent(batch.observations, batch.goals)
    assert found.shape[1] == 6
    torch.testing.assert_close(found.norm(dim=-1), torch.full_like(found[:, 0], math.sqrt(6)))


@pytest.mark.parametrize(("data", "reaches"), [("continuous", False), ("pictures", True)])
def test_the_lower_policy_reaches_the_representation_on_pictures_only(data, reaches):
    assert made(data)[0].reaches_phi is reaches
    assert made(data, low_actor_rep_grad=not reaches)[0].reaches_phi is not reaches


def test_the_upper_policy_never_reaches_the_representation():
    agent, batch = made("pictures", size=0.03)
    loss, _ = agent._high_loss(batch)
    parameters = [*agent.phi.parameters(), *agent.value.parameters()]
    assert torch.autograd.grad(loss, parameters, allow_unused=True) == (None,) * len(parameters)


def test_targets_of_the_upper_policy_lie_no_further_than_its_goal():
    """Subgoals of the lower policy do: they lie ``subgoal_steps`` ahead wherever its goal is."""
    agent, batch = made(batch_size=256)
    rows = {tuple(row.tolist()): i for i, row in enumerate(agent.dataset.observations)}
    where = {}
    for name in ("observations", "subgoals", "target_goals", "actor_goals", "target_observations"):
        value = getattr(batch, name).float().tolist()
        where[name] = np.array([rows[tuple(row)] for row in value])
    now, last = where["observations"], 99  # OGBench's support leaves out the last row
    assert np.array_equal(where["subgoals"], np.minimum(now + 7, last))
    assert np.array_equal(where["target_goals"], np.minimum(now + 7, where["actor_goals"]))
    assert np.array_equal(where["target_observations"], where["target_goals"])
    assert (where["subgoals"] > where["target_goals"]).any()


def test_the_targets_decide_the_side_of_the_expectile():
    agent, batch = made(size=0.5)
    h = Hierarchy(Reference(agent))
    targets = batch.rewards + 0.99 * (1 - batch.terminated) * h.v(
        "value_target", batch.next_observations, batch.goals
    )
    here = [h.v(n, batch.observations, batch.goals) for n in ("value_target", "value")]
    by_target = targets.amin(0) >= here[0].mean(0)
    assert (by_target != (targets.amin(0) >= here[1].mean(0))).any()
    assert (by_target != (targets >= here[1])).any()
    agreement(agent, batch)


# -------------------------------------------------------------------------------------- acting


def observations(count):
    rng = np.random.default_rng(0)
    return {name: rng.uniform(0, 10, (count, 2)).astype(np.float32)
            for name in ("observation", "desired_goal")}  # fmt: skip


def test_acting_brings_the_proposal_to_the_length_of_a_representation():
    agent, _ = made()
    many = observations(20)
    h = Hierarchy(Reference(agent))
    s, g = (torch.as_tensor(many[name]).double() for name in ("observation", "desired_goal"))
    proposal = h.high(s, g)
    proposal = proposal / proposal.norm(dim=-1, keepdim=True) * math.sqrt(10)
    expected = h.low(s, proposal).clip(-1, 1).detach()
    agent.policy.float()
    found = agent.predict(many, deterministic=True)[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_sampling_samples_both_policies():
    agent, _ = made()
    agent.policy.float()
    many = {name: np.repeat(value, 50, 0) for name, value in observations(1).items()}
    with torch.no_grad():
        agent.low_actor.log_std.fill_(-30.0)
        agent.high_actor.log_std.fill_(0.0)
    assert agent.predict(many)[0].std(0).min() > 1e-4
    with torch.no_grad():
        agent.low_actor.log_std.fill_(-1.0)
        agent.high_actor.log_std.fill_(-30.0)
    assert agent.predict(many)[0].std(0).min() > 1e-2
    with agent.sampling_seed(3):
        first = agent.predict(many)[0]
    with agent.sampling_seed(3):
        assert np.array_equal(first, agent.predict(many)[0])


def test_discrete_actions():
    agent, _ = made("discrete", size=0.03)
    agent.policy.float()
    pictures = np.zeros((200, 8, 8, 3), np.uint8)
    many = {"observation": pictures, "desired_goal": pictures}
    assert len(set(agent.predict(many)[0].tolist())) == 4
    assert len(set(agent.predict(many, deterministic=True)[0].tolist())) == 1


# ------------------------------------------------------------------------------------- options


def test_one_optimiser_and_goals_of_the_published_law():
    agent = HIQL(*goal_data(), subgoal_steps=10, **SMALL)
    assert list(agent.optimizers) == ["agent"]
    assert agent.sampler == SubgoalSampler(
        value=(0.2, 0.5, 0.3), future="geometric", actor="auto", actor_future="uniform",
        support="ogbench", reward="auto", steps=10,
    )  # fmt: skip


def test_a_sampler_brings_its_own_subgoals_and_is_saved_with_the_agent():
    agent = HIQL(*goal_data(), sampler=SubgoalSampler(steps=3), **SMALL)
    assert agent.subgoal_steps == 3
    file = io.BytesIO()
    agent.save(file)
    file.seek(0)
    again = HIQL.load(file)
    assert (again.sampler, again.subgoal_steps) == (SubgoalSampler(steps=3), 3)


def test_defaults_are_the_published_ones():
    agent = HIQL(*goal_data(), seed=0, device="cpu")
    assert (agent.hidden_sizes, agent.batch_size) == ((512, 512, 512), 1024)
    assert (agent.low_alpha, agent.high_alpha, agent.expectile) == (3.0, 3.0, 0.7)
    assert (agent.subgoal_steps, agent.rep_dim) == (25, 10)
    assert (agent.discount, agent.tau) == (0.99, 0.005)
    assert agent.optimizers["agent"].param_groups[0]["lr"] == 3e-4
    assert len(agent.value.stack.norm_scales) == 3
    norms = [layer for layer in agent.phi if isinstance(layer, torch.nn.LayerNorm)]
    assert len(norms) == 3
    for weight in [*agent.value.stack.weights, agent.phi[0].weight, agent.phi[-1].weight]:
        width = math.sqrt(6 / sum(weight.shape[-2:]))
        assert 0.95 * width < float(weight.detach().abs().max()) < 1.001 * width
    for policy, outputs in ((agent.low_actor, 2), (agent.high_actor, 10)):
        assert not any(isinstance(layer, torch.nn.LayerNorm) for layer in policy.mean)
        bound = 0.1 * math.sqrt(6 / (512 + outputs))
        assert 0.95 * bound < float(policy.mean[-1].weight.detach().abs().max()) < 1.001 * bound


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"expectile": 1.0}, r"expectile is 1.0; .* \(0, 1\)"),
        ({"low_alpha": -1.0}, "low_alpha is -1.0; .* >= 0"),
        ({"high_alpha": float("nan")}, "high_alpha is nan; .* >= 0"),
        ({"p_aug": 1.5}, r"p_aug is 1.5; .*\[0, 1\]"),
        ({"subgoal_steps": 0}, "subgoal_steps is 0; .* at least 1"),
        ({"rep_dim": 2.5}, "rep_dim is 2.5; .* whole number"),
        ({"low_actor_rep_grad": "on"}, "low_actor_rep_grad is 'on'; choose from .*auto"),
        ({"encoder": "impala"}, 'not pictures .* use "auto"'),
        ({"sampler": GoalSampler()}, "GoalSampler does not draw; pass a SubgoalSampler"),
        ({"sampler": TransitionSampler()}, "TransitionSampler does not draw"),
        (
            {"subgoal_steps": 3, "sampler": SubgoalSampler(steps=4)},
            "subgoal_steps is 3, but the sampler that was passed has steps=4",
        ),
        ({"subgoal_step": 3}, "subgoal_steps"),
    ],
)
def test_wrong_options_are_named(keywords, words):
    with pytest.raises(UserError, match=words):
        HIQL(*goal_data(), **(SMALL | keywords))


def test_data_without_goals_are_refused():
    with pytest.raises(UserError, match="HIQL learns to reach goals, but this task has none"):
        HIQL(None, plain_dataset(), **SMALL)
