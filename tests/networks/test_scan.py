"""The selective scan is the recurrence it stands for: values, all gradients, both ends' states."""

import warnings

import pytest
import torch

from gcrl_gym.errors import UserError
from gcrl_gym.networks import scan as scan_module
from gcrl_gym.networks.scan import selective_scan

NAMES = ("u", "dt", "A", "B", "C", "state")


def sequential(u, dt, A, B, C, state=None):
    """The paper's recurrence, one step after the other, in [batch, channels, states]."""
    steps, batch, channels = u.shape
    hidden = torch.zeros(batch, channels, A.shape[1], dtype=u.dtype)
    if state is not None:
        hidden = state.transpose(1, 2)
    outputs = []
    for t in range(steps):
        discrete = torch.exp(torch.einsum("bd,dn->bdn", dt[t], A))
        hidden = discrete * hidden + torch.einsum("bd,bn,bd->bdn", dt[t], B[t], u[t])
        outputs.append(torch.einsum("bdn,bn->bd", hidden, C[t]))
    return torch.stack(outputs), hidden.transpose(1, 2)


def inputs(length, batch=3, channels=10, states=4, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    u, dt = normal(length, batch, channels), normal(length, batch, channels)
    values = [
        u,
        torch.nn.functional.softplus(dt),
        -normal(channels, states).exp(),
        normal(length, batch, states),
        normal(length, batch, states),
        normal(batch, states, channels),
    ]
    return [value.to(dtype).requires_grad_() for value in values]


def with_gradients(scan, tensors):
    """Outputs, last state and the gradients of a weighted sum of both."""
    y, last = scan(*tensors)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in (y, last)]
    total = sum((w.to(t.dtype) * t).sum() for w, t in zip(weights, (y, last)))
    return [y, last, *torch.autograd.grad(total, tensors)]


def error(found, expected):
    # What is below float32's least number may be lost.
    difference = (found.double() - expected).detach().norm() - 1e-38
    return float(difference / expected.detach().norm())


@pytest.mark.parametrize("memory", ["recompute", "store"])
@pytest.mark.parametrize("length", [1, 7, 99, 100, 101])
def test_scan_equals_the_sequential_reference(length, memory):
    reference = with_gradients(sequential, inputs(length, dtype=torch.float64))
    for dtype, close in ((torch.float64, 1e-13), (torch.float32, 2e-6)):
        found = with_gradients(
            lambda *tensors: selective_scan(*tensors, memory=memory), inputs(length, dtype=dtype)
        )
        for name, own, expected in zip(("y", "last", *NAMES), found, reference):
            assert own.dtype == dtype
            assert error(own, expected) < close, name


@pytest.mark.parametrize("memory", ["recompute", "store"])
def test_gradcheck(memory):
    tensors = inputs(7, batch=2, channels=3, states=2, dtype=torch.float64)
    run = lambda *given: selective_scan(*given, memory=memory, chunk=3)  # noqa: E731
    assert torch.autograd.gradcheck(run, tensors)
    # Without a state, and with the last state unused.
    assert torch.autograd.gradcheck(lambda *given: run(*given)[0], tensors[:-1])


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_large_steps_stay_finite(scale):
    """In sums of logarithms these overflow: a decay of exp(-1000) divides by zero."""
    tensors, exact = inputs(100), inputs(100, dtype=torch.float64)
    for each in (tensors, exact):
        with torch.no_grad():
            each[1].mul_(scale)
    found, reference = with_gradients(selective_scan, tensors), with_gradients(sequential, exact)
    for name, own, expected in zip(("y", "last", *NAMES), found, reference):
        assert own.isfinite().all(), name
        assert error(own, expected) < 1e-5, name


def test_store_is_recompute_to_the_bit():
    results = [
        with_gradients(lambda *given, kind=kind: selective_scan(*given, memory=kind), inputs(37))
        for kind in ("recompute", "store")
    ]
    for one, other in zip(*results):
        assert torch.equal(one, other)


def test_recompute_keeps_little():
    def kept(memory):
        tensors, sizes = inputs(100, batch=4, channels=32, states=16), {}

        def pack(tensor):
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            selective_scan(*tensors, memory=memory)
        return sum(sizes.values())

    states = 100 * 4 * 32 * 16
    assert kept("store") > 2 * states
    assert kept("recompute") < 0.4 * states


@pytest.mark.parametrize("memory", ["recompute", "store"])
def test_backward_twice(memory):
    """Nothing that was kept is overwritten by a backward pass."""
    tensors = inputs(23)
    y, _ = selective_scan(*tensors, memory=memory)
    first = torch.autograd.grad(y.sum(), tensors, retain_graph=True)
    second = torch.autograd.grad(y.sum(), tensors)
    for one, other in zip(first, second):
        assert torch.equal(one, other)


@pytest.mark.parametrize("chunk", [1, 4, 1000])
def test_chunk_length_does_not_matter(chunk):
    whole = with_gradients(selective_scan, inputs(23, dtype=torch.float64))
    found = with_gradients(
        lambda *given: selective_scan(*given, chunk=chunk), inputs(23, dtype=torch.float64)
    )
    for one, other in zip(found, whole):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_blocks_of_rows_do_not_matter(monkeypatch, rows):
    whole = with_gradients(selective_scan, inputs(23, batch=5, dtype=torch.float64))
    monkeypatch.setattr(scan_module, "_BLOCK", rows * 10 * 4 // torch.get_num_threads())
    found = with_gradients(selective_scan, inputs(23, batch=5, dtype=torch.float64))
    for one, other in zip(found, whole):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_sequence_in_two_parts():
    """The last state carries everything on, gradients too."""

    def in_parts(u, dt, A, B, C, state):
        first, state = selective_scan(u[:9], dt[:9], A, B[:9], C[:9], state)
        second, state = selective_scan(u[9:], dt[9:], A, B[9:], C[9:], state)
        return torch.cat([first, second]), state

    whole = with_gradients(selective_scan, inputs(23, dtype=torch.float64))
    for one, other in zip(with_gradients(in_parts, inputs(23, dtype=torch.float64)), whole):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_no_steps():
    tensors = inputs(0)
    y, last = selective_scan(*tensors)
    assert y.shape == (0, 3, 10)
    assert torch.equal(last, tensors[-1])
    last.sum().backward()
    assert torch.equal(tensors[-1].grad, torch.ones_like(last))


def test_rows_are_independent():
    tensors = [tensor.detach() for tensor in inputs(23)]
    whole, last = selective_scan(*tensors)
    own = [tensors[i] if i == 2 else tensors[i][:, 1:2] for i in range(5)]
    y, state = selective_scan(*own, tensors[5][1:2])
    torch.testing.assert_close(y, whole[:, 1:2], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(state, last[1:2], rtol=1e-6, atol=1e-6)


def test_causality():
    tensors = [tensor.detach() for tensor in inputs(23)]
    before, _ = selective_scan(*tensors)
    changed = [tensor.clone() for tensor in tensors]
    for index in (0, 1, 3, 4):
        changed[index][13:] += 1.0
    after, _ = selective_scan(*changed)
    assert torch.equal(after[:13], before[:13])
    assert (after[13] != before[13]).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_computed_in_float32(dtype):
    tensors = [tensor.detach().to(dtype) for tensor in inputs(50)]
    y, last = selective_scan(*tensors)
    assert y.dtype == dtype
    assert last.dtype == torch.float32
    expected, state = selective_scan(*(tensor.float() for tensor in tensors))
    assert torch.equal(y, expected.to(dtype))
    assert torch.equal(last, state)


def test_autocast_does_not_reach_the_scan():
    expected = with_gradients(selective_scan, inputs(23))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tensors = inputs(23)
        y, last = selective_scan(*tensors)
        gradients = torch.autograd.grad((y.sum(), last.sum()), tensors)
    plain = inputs(23)
    y_plain, last_plain = selective_scan(*plain)
    for one, other in zip(gradients, torch.autograd.grad((y_plain.sum(), last_plain.sum()), plain)):
        assert torch.equal(one, other)
    assert torch.equal(y, expected[0])
    assert torch.equal(last, expected[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "recompue"}, "Did you mean 'recompute'"),
        ({"chunk": 0}, "chunk=0"),
        ({"memory": "store", "compiled": True}, "memory='recompute'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UserError, match=message):
        selective_scan(*inputs(3), **options)


def test_without_a_compiler_one_warning(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("No working C++ compiler found\nand more")

    expected = with_gradients(selective_scan, inputs(23))
    monkeypatch.setattr(torch, "compile", broken)
    scan_module.compiled_functions.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"\(No working C\+\+ compiler found\)"):
            first = with_gradients(lambda *t: selective_scan(*t, compiled=True), inputs(23))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            second = with_gradients(lambda *t: selective_scan(*t, compiled=True), inputs(23))
    finally:
        scan_module.compiled_functions.cache_clear()
    for one, other, plain in zip(first, second, expected):
        assert torch.equal(one, plain)
        assert torch.equal(other, plain)


def test_functions_for_the_compiler(monkeypatch):
    """They are the same mathematics, run here without compiling them."""
    functions = (scan_module._plain_forward, scan_module._plain_backward)
    monkeypatch.setattr(scan_module, "compiled_functions", lambda: functions)
    expected = with_gradients(sequential, inputs(23, dtype=torch.float64))
    found = with_gradients(
        lambda *t: selective_scan(*t, compiled=True), inputs(23, dtype=torch.float64)
    )
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_compiled_scan_equals_the_reference():
    scan_module.compiled_functions.cache_clear()
    with warnings.catch_warnings(record=True):
        if scan_module.compiled_functions() is None:
            pytest.skip("no compiler")
    expected = with_gradients(sequential, inputs(23, dtype=torch.float64))
    found = with_gradients(lambda *t: selective_scan(*t, compiled=True), inputs(23))
    for name, own, reference in zip(("y", "last", *NAMES), found, expected):
        assert error(own, reference) < 2e-6, name


@pytest.mark.slow
def test_a_compiled_update_calls_the_scan_eagerly():
    """Unrolled into the update it would compile for minutes; the steps never reach the compiler."""
    seen = []

    def backend(graph, _):
        seen.append(sum(node.op.startswith("call") for node in graph.graph.nodes))
        return graph.forward

    def update(*tensors):
        return selective_scan(*tensors)[0].square().sum()

    tensors = inputs(50)
    compiled = torch.compile(update, backend=backend)(*tensors)
    assert max(seen, default=0) < 20
    torch.testing.assert_close(compiled, update(*tensors))
