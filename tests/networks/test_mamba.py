"""The Mamba-1 block against mamba-ssm's own outputs, stepping, and the choice of its backend."""

import importlib
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from gcrl_gym.errors import UserError
from gcrl_gym.networks import mamba
from gcrl_gym.networks.mamba import MambaBlock, backend_on
from tests.networks.test_scan import sequential

GOLDEN = Path(__file__).parents[1] / "data" / "mamba" / "mamba_ssm_reference.safetensors"


@pytest.fixture(autouse=True)
def forget_what_imports():
    caches = (mamba.fused_kernel, mamba._fused_convolution)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def block(width=8, **options):
    torch.manual_seed(0)
    made = MambaBlock(width, **{"d_state": 4, **options})
    with torch.no_grad():  # away from the starting values, which hide mistakes in D and A
        made.A_log.add_(0.3 * torch.randn_like(made.A_log))
        made.D.add_(0.3 * torch.randn_like(made.D))
    return made


def named(prefix):
    golden = load_file(GOLDEN)
    return {key.removeprefix(prefix): golden[key] for key in golden if key.startswith(prefix)}


def test_outputs_and_gradients_of_mamba_ssm():
    golden, net = load_file(GOLDEN), MambaBlock(8, d_state=4)
    net.load_state_dict(named("weights."), strict=True)
    x = golden["x"].requires_grad_()
    y, (conv_state, scan_state) = net(x)
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(y, golden["y"], **close)
    torch.testing.assert_close(scan_state.mT, golden["ssm_state"], **close)
    torch.testing.assert_close(conv_state.mT, golden["conv_state"][..., 1:], **close)
    (y * golden["cotangent"]).sum().backward()
    found = {name: parameter.grad for name, parameter in net.named_parameters()} | {"x": x.grad}
    assert found.keys() == named("grad.").keys()
    for name, expected in named("grad.").items():
        torch.testing.assert_close(found[name], expected, **close, msg=name)


def test_steps_of_mamba_ssm():
    golden, net = load_file(GOLDEN), MambaBlock(8, d_state=4)
    net.load_state_dict(named("weights."), strict=True)
    state, steps = net.initial_state(2), []
    for x in golden["x"].unbind(1):
        y, state = net.step(x, state)
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps, 1), golden["steps"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state[1].mT, golden["ssm_state"], rtol=1e-5, atol=1e-6)


def test_parameters_are_those_of_mamba_ssm():
    shapes = {name: tuple(p.shape) for name, p in MambaBlock(128).state_dict().items()}
    assert shapes == {
        "A_log": (256, 16),
        "D": (256,),
        "in_proj.weight": (512, 128),
        "conv1d.weight": (256, 1, 4),
        "conv1d.bias": (256,),
        "x_proj.weight": (40, 256),
        "dt_proj.weight": (256, 8),
        "dt_proj.bias": (256,),
        "out_proj.weight": (128, 256),
    }
    assert sum(p.numel() for p in MambaBlock(128).parameters()) == 116_480


def test_starting_values(monkeypatch):
    net = MambaBlock(128)
    torch.testing.assert_close(net.A_log.exp(), torch.arange(1.0, 17).expand(256, 16))
    dt = functional.softplus(net.dt_proj.bias)
    assert dt.min() >= 1e-3 * 0.999
    assert dt.max() <= 0.1 * 1.001
    assert dt.log().std() > 1.0  # spread over both decades
    assert net.dt_proj.weight.abs().max() <= 8**-0.5
    monkeypatch.setattr(mamba, "_DT_RANGE", (0.5, 2.0))  # where softplus is not its exponential
    dt = functional.softplus(MambaBlock(128).dt_proj.bias)
    assert dt.min() >= 0.499
    assert 1.9 < dt.max() <= 2.001


@pytest.mark.parametrize("memory", ["recompute", "store"])
@pytest.mark.parametrize("d_conv", [1, 2, 4])
def test_step_is_forward_from_reset(d_conv, memory):
    net = block(d_conv=d_conv, memory=memory).double()
    x = torch.randn(3, 40, 8, dtype=torch.float64)
    whole, last = net(x)
    state = net.initial_state(3)
    for t in range(40):
        y, state = net.step(x[:, t], state)
        torch.testing.assert_close(y, whole[:, t], rtol=1e-12, atol=1e-12)
    for one, other in zip(state, last):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_forward_goes_on_from_a_state():
    net = block().double()
    x = torch.randn(3, 17, 8, dtype=torch.float64, requires_grad=True)
    whole, last = net(x)
    for middle in (1, 2, 9):  # shorter than the convolution too
        first, state = net(x[:, :middle])
        second, end = net(x[:, middle:], state)
        joined = torch.cat([first, second], 1)
        torch.testing.assert_close(joined, whole, rtol=1e-12, atol=1e-12)
        for one, other in zip(end, last):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        expected = torch.autograd.grad(whole.square().sum(), net.in_proj.weight, retain_graph=True)
        found = torch.autograd.grad(joined.square().sum(), net.in_proj.weight)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_rows_are_independent_and_causal():
    net, x = block(), torch.randn(3, 20, 8)
    whole, _ = net(x)
    torch.testing.assert_close(net(x[1:2])[0], whole[1:2], rtol=1e-5, atol=1e-6)
    changed = x.clone()
    changed[:, 12:] += 1.0
    after, _ = net(changed)
    torch.testing.assert_close(after[:, :12], whole[:, :12], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(after[:, 12], whole[:, 12])


def test_a_step_follows_every_change_of_the_weights():
    """Fused optimisers leave a tensor's version as it was: nothing may be kept by it."""

    def check():
        with torch.no_grad():
            state = net.initial_state(2)
            net.step(x[:, 0], state)
            for t in range(5):
                y, state = net.step(x[:, t], state)
            expected = net(x)[0][:, -1]
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)

    net, x = block(), torch.randn(2, 5, 8)
    check()
    before = net.A_log.clone()
    for options in ({"fused": True}, {"foreach": True}, {"foreach": False}):
        optimizer = torch.optim.Adam(net.parameters(), 0.5, **options)
        net(x)[0].square().sum().backward()
        optimizer.step()
        check()
    assert not torch.allclose(net.A_log, before, atol=0.3)
    net.A_log.data.add_(1.0)
    check()
    net.load_state_dict(block(8).state_dict())
    check()


def test_gradients_of_steps():
    net, x = block().double(), torch.randn(2, 6, 8, dtype=torch.float64)
    (expected,) = torch.autograd.grad(net(x)[0].square().sum(), net.A_log)
    state, total = net.initial_state(2), 0.0
    for t in range(6):
        y, state = net.step(x[:, t], state)
        total = total + y.square().sum()
    (found,) = torch.autograd.grad(total, net.A_log)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("way", ["module", "autocast"])
def test_half_precision(way):
    """The small steps of the starting values survive bfloat16, and results stay close."""
    net, x = block(32, d_state=16), torch.randn(2, 50, 32)
    expected, (_, state) = net(x)
    if way == "module":
        net, x = net.bfloat16(), x.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=way == "autocast"):
        y, (_, found) = net(x)
        state_of_steps = net.initial_state(2)
        for each in x.unbind(1):
            step, state_of_steps = net.step(each, state_of_steps)
    assert y.dtype == step.dtype == torch.bfloat16
    scale = expected.detach().norm()
    assert (y - expected).detach().norm() < 0.02 * scale
    assert (found - state).detach().norm() < 0.02 * state.detach().norm()
    assert (step - y[:, -1]).detach().norm() < 0.02 * expected[:, -1].detach().norm() + 0.01
    y.sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_half_precision_spares_the_time_scales():
    """A rounded exponent moves a decay by percents: its parts are added in float32."""
    net = block(32, d_state=16)
    low_rank = torch.randn(50, 2, dtype=torch.float64)
    weight, bias = net.dt_proj.weight.double(), net.dt_proj.bias.double()
    exact = functional.softplus(functional.linear(0.1 * low_rank, weight, bias))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = net._time_steps(0.1 * low_rank.bfloat16())
    assert ((found - exact) / exact).detach().abs().max() < 0.003
    net = net.bfloat16()
    assert torch.equal(net._rates(), -net.A_log.float().exp())


# Backends.


def kernel(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state):
    """mamba-ssm's fused scan by its documented arguments: [B, D, L], and [B, N, L] for B and C."""
    assert delta_softplus
    assert return_last_state
    assert {t.dtype for t in (A, D, delta_bias)} == {torch.float32}
    assert len({t.dtype for t in (u, delta, B, C, z)}) == 1
    dt = functional.softplus(delta + delta_bias[:, None])
    front = (2, 0, 1)
    y, last = sequential(u.permute(front), dt.permute(front), A, B.permute(front), C.permute(front))
    y = y.permute(1, 2, 0) + D[:, None] * u
    return y * functional.silu(z), last.mT


def convolution(x, weight, bias, activation):
    """causal_conv1d's function: [B, D, L]."""
    assert activation == "silu"
    padded = functional.pad(x, (weight.shape[1] - 1, 0))
    return functional.silu(functional.conv1d(padded, weight[:, None], bias, groups=len(weight)))


def importing(monkeypatch, **modules):
    """Fake imports: a module, an exception to raise, or nothing for one that does not exist."""
    real, asked = importlib.import_module, []

    def fake(name, package=None):
        if name.split(".")[0] not in ("mamba_ssm", "selective_scan_cuda", "causal_conv1d",
                                      "causal_conv1d_cuda"):  # fmt: skip
            return real(name, package)
        asked.append(name)
        found = modules.get(name.split(".")[0], ModuleNotFoundError(f"No module named {name!r}"))
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(importlib, "import_module", fake)
    return asked


INTERFACE = types.SimpleNamespace(selective_scan_fn=kernel)
WORKING = {"mamba_ssm": INTERFACE, "selective_scan_cuda": types.SimpleNamespace()}


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"mamba_ssm": INTERFACE},
        {"selective_scan_cuda": types.SimpleNamespace()},
        WORKING | {"selective_scan_cuda": ImportError("undefined symbol: _ZN3c104cuda9SetDevice")},
        WORKING | {"mamba_ssm": RuntimeError("0 active drivers ([]). There should only be one.")},
        WORKING | {"mamba_ssm": AttributeError("module 'triton' has no attribute 'language'")},
        WORKING | {"mamba_ssm": types.SimpleNamespace()},
    ],
)
def test_whatever_fails_to_import_means_no_kernel(monkeypatch, broken):
    importing(monkeypatch, **broken)
    assert mamba.fused_kernel() is None
    assert backend_on("auto", "cuda") == "torch"
    with pytest.raises(UserError, match=r"pip install 'gcrl-gym\[mamba\]'"):
        backend_on("fused", "cuda")
    with pytest.raises(UserError, match="backend='auto'"):
        MambaBlock(8, backend="fused")


def test_the_choice_of_a_backend(monkeypatch):
    asked = importing(monkeypatch, **WORKING)
    assert backend_on("auto", "cpu") == "torch"
    MambaBlock(8)(torch.zeros(1, 2, 8))
    assert not asked, "on a CPU nothing is imported"
    assert backend_on("auto", "cuda:1") == "fused"
    assert backend_on("fused", torch.device("cuda")) == "fused"
    assert len(asked) == 2
    assert backend_on("auto", "cuda") == "fused"
    assert len(asked) == 2, "asked once"
    for device in ("cpu", "cuda"):
        assert backend_on("torch", device) == "torch"
        assert backend_on("compiled", device) == "compiled"
    with pytest.raises(UserError, match="runs on CUDA only and the tensors are on cpu"):
        MambaBlock(8, backend="fused")(torch.zeros(1, 2, 8))
    with pytest.raises(UserError, match="Did you mean 'fused'"):
        MambaBlock(8, backend="fusd")
    with pytest.raises(UserError, match="Did you mean 'store'"):
        MambaBlock(8, memory="stor")
    with pytest.raises(UserError, match="recomputes its states"):
        MambaBlock(8, backend="compiled", memory="store")


@pytest.mark.parametrize(
    ("backend", "memory"),
    [("torch", "recompute"), ("torch", "store"), ("auto", "store"), ("compiled", "recompute")],
)
def test_options_reach_the_scan(monkeypatch, memory, backend):
    given = []

    def scan(*tensors, **options):
        given.append(options)
        return tensors[0], tensors[0][-1]

    monkeypatch.setattr(mamba, "selective_scan", scan)
    block(memory=memory, backend=backend)(torch.zeros(1, 2, 8))
    assert given == [{"memory": memory, "compiled": backend == "compiled"}]


@pytest.mark.parametrize("convolution_too", [False, True])
def test_the_fused_call(monkeypatch, convolution_too):
    """The kernel is called by its own conventions; here a stand-in with the same arguments."""
    modules = dict(WORKING)
    if convolution_too:
        modules["causal_conv1d_cuda"] = types.SimpleNamespace()
        modules["causal_conv1d"] = types.SimpleNamespace(causal_conv1d_fn=convolution)
    importing(monkeypatch, **modules)
    net, x = block(), torch.randn(2, 30, 8, requires_grad=True)
    expected, expected_state = net(x)
    (net(x)[0] * expected.detach()).sum().backward()
    gradients = {name: p.grad.clone() for name, p in net.named_parameters()} | {"x": x.grad.clone()}
    net.zero_grad()
    x.grad = None

    monkeypatch.setattr(mamba, "backend_on", lambda *_: "fused")
    y, state = net(x)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
    for one, other in zip(state, expected_state):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert not state[1].requires_grad
    (y * expected.detach()).sum().backward()
    for name, parameter in [*net.named_parameters(), ("x", x)]:
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5)

    # What the kernel cannot do, "auto" does without it; "fused" says so.
    again, _ = net(x, state)
    net.backend = "torch"
    torch.testing.assert_close(again, net(x, state)[0])
    net.backend = "fused"
    with pytest.raises(UserError, match="state to start from"):
        net(x, state)
    with pytest.raises(UserError, match="float64"):
        net.double()(x.double())


# On a GPU.

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@cuda
@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)], ids=["fp32", "bf16"]
)
def test_fused_equals_torch(dtype, close):
    if mamba.fused_kernel() is None:
        pytest.skip("mamba-ssm's kernel is not installed")
    net = block(64, d_state=16).cuda()
    x = torch.randn(4, 101, 64, device="cuda")
    results = {}
    for backend in ("fused", "torch"):
        net.backend = backend
        net.zero_grad()
        given = x.clone().requires_grad_()
        with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
            y, (_, state) = net(given)
        y.float().square().sum().backward()
        found = {name: p.grad.clone() for name, p in net.named_parameters()}
        results[backend] = found | {"x": given.grad, "y": y.float(), "state": state.float()}
    for name, expected in results["torch"].items():
        difference = (results["fused"][name] - expected).detach().norm()
        assert difference < close * expected.detach().norm(), name


@pytest.mark.gpu
@cuda
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_trained_on_a_gpu_loaded_on_a_cpu(backend, tmp_path):
    from safetensors.torch import save_file

    net = block(64, d_state=16, backend=backend).cuda()
    x = torch.randn(4, 50, 64, device="cuda")
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        (net(x)[0] - x).square().mean().backward()
        optimizer.step()
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    loaded = MambaBlock(64)
    loaded.load_state_dict(load_file(tmp_path / "net.safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(loaded(x.cpu())[0], net(x)[0].cpu(), rtol=1e-3, atol=1e-4)
        state = loaded.initial_state(4)
        for t in range(50):
            y, state = loaded.step(x[:, t].cpu(), state)
        torch.testing.assert_close(y, net(x)[0][:, -1].cpu(), rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@cuda
def test_torch_backend_on_a_gpu_equals_the_cpu():
    net, x = block(64, d_state=16, backend="torch"), torch.randn(4, 101, 64)
    expected = net(x)[0]
    expected.square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in net.named_parameters()}
    net = net.cuda()
    net.zero_grad()
    y = net(x.cuda())[0]
    y.square().sum().backward()
    torch.testing.assert_close(y.cpu(), expected, rtol=1e-3, atol=1e-4)
    for name, parameter in net.named_parameters():
        difference = (parameter.grad.cpu() - gradients[name]).norm()
        assert difference < 1e-3 * gradients[name].norm(), name
