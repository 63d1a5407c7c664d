"""Sequence encoders: padding is invisible, steps are windows, rows and times do not mix."""

import copy

import numpy as np
import pytest
import torch

from gcrl_gym.errors import UserError
from gcrl_gym.networks import mamba
from gcrl_gym.networks.sequence import AttentionBlock, SequenceEncoder

MODULE = "gcrl_gym.networks.sequence"
KINDS = ("mamba", "gru", "transformer")
WIDTH = 16
# A constant would not pass a LayerNorm.
SHIFT = torch.linspace(-1, 1, WIDTH, dtype=torch.float64)
each_kind = pytest.mark.parametrize("kind", KINDS)


def encoder(kind, dtype=torch.float64, **options):
    torch.manual_seed(0)
    return SequenceEncoder(WIDTH, kind, **options).to(dtype).eval()


def windows(batch=4, length=20, dtype=torch.float64):
    return torch.randn(
        batch, length, WIDTH, generator=torch.Generator().manual_seed(1), dtype=dtype
    )


def left_padded(batch, length):
    """Masks with 0, 1, a few and length - 1 steps of padding."""
    padding = torch.tensor([0, 1, 7, length - 1])[:batch, None]
    return (torch.arange(length) >= padding).float()


@each_kind
@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float32, 1e-6), (torch.float64, 1e-14)], ids=["32", "64"]
)
def test_a_padded_window_is_the_window_without_padding(kind, dtype, close):
    net, x, mask = encoder(kind, dtype), windows(dtype=dtype), left_padded(4, 20)
    parameters = list(net.parameters())
    x.requires_grad_()
    outputs = net(x, mask)
    assert outputs.shape == x.shape
    assert (outputs[mask == 0] == 0).all()
    weights = torch.randn_like(x)
    found = torch.autograd.grad((outputs * weights).sum(), [x, *parameters])
    total = 0.0
    for row, length in enumerate(mask.sum(1).long().tolist()):
        alone = net(x[row : row + 1, -length:])
        torch.testing.assert_close(outputs[row, -length:], alone[0], rtol=0, atol=close)
        total = total + (alone[0] * weights[row, -length:]).sum()
    for own, expected in zip(found, torch.autograd.grad(total, [x, *parameters])):
        difference = (own - expected).norm()
        assert difference <= 10 * close * (1.0 + expected.norm())
    assert (found[0][mask == 0] == 0).all()


@each_kind
@pytest.mark.parametrize("content", [1e6, float("nan"), float("inf")])
def test_what_stands_in_the_padding_does_not_matter(kind, content):
    net, mask = encoder(kind), left_padded(4, 20)
    for parameter in net.parameters():  # LayerNorm's shift and every bias, away from zero
        parameter.data += 0.1
    plain, dirty = windows(), windows().masked_fill(mask[..., None] == 0, content)
    for x in (plain, dirty):
        x.requires_grad_()
    assert torch.equal(net(plain, mask), net(dirty, mask))
    gradients = [
        torch.autograd.grad(net(x, mask).square().sum(), list(net.parameters()))
        for x in (plain, dirty)
    ]
    for one, other in zip(*gradients):
        assert torch.equal(one, other)


@each_kind
def test_masks_of_all_sorts(kind):
    net, x = encoder(kind), windows()
    expected = net(x)
    torch.testing.assert_close(net(x, torch.ones(4, 20)), expected)
    mask = left_padded(4, 20)
    assert torch.equal(net(x, mask), net(x, mask.bool()))
    assert torch.equal(net(x, mask), net(x, mask.long()))
    mask[2] = 0
    outputs = net(x, mask)
    assert outputs.isfinite().all()
    assert (outputs[2] == 0).all()
    assert net(x[:0], mask[:0]).shape == (0, 20, WIDTH)


@each_kind
def test_wrong_masks(kind):
    net, x, mask = encoder(kind), windows(), torch.ones(4, 20)
    with pytest.raises(UserError, match=r"mask has shape \[4, 19\]"):
        net(x, mask[:, 1:])
    for wrong in (slice(19, 20), slice(3, 5)):  # padding on the right, and within
        mask[:] = 1
        mask[1, wrong] = 0
        with pytest.raises(UserError, match=r"SequenceSampler\(padding='left'\)"):
            net(x, mask)


@each_kind
@pytest.mark.parametrize("length", [1, 6, 7, 20])
def test_step_is_forward_from_reset(kind, length):
    """For the transformer too, whose window slides: its context ends before the sequence does."""
    net, x = encoder(kind, context=6, heads=2), windows(length=length)
    whole, state = net(x), net.initial_state(4)
    for t in range(length):
        y, state = net.step(x[:, t], state)
        torch.testing.assert_close(y, whole[:, t], rtol=1e-12, atol=1e-12)


@each_kind
def test_step_continues_a_padded_window(kind):
    """The states that go with a padded window are those of an episode that began after it."""
    net, x, mask = encoder(kind), windows(), left_padded(4, 20)
    outputs, state = net(x, mask), net.initial_state(4)
    for t in range(20):
        state = net.reset(state, mask[:, max(t - 1, 0)] == 0)  # the step before was padding
        y, state = net.step(x[:, t], state)
        seen = mask[:, t] == 1
        torch.testing.assert_close(y[seen], outputs[seen, t], rtol=1e-12, atol=1e-12)


@each_kind
def test_a_state_is_carried_as_arrays(kind):
    """SB3 hands ``predict`` a tuple of arrays with the batch in front."""
    net, x = encoder(kind, torch.float32, context=5), windows(dtype=torch.float32)
    state = net.initial_state(4)
    assert isinstance(state, tuple)
    assert all(len(tensor) == 4 for tensor in state)
    assert all((tensor == 0).all() for tensor in state)
    carried = state
    with torch.no_grad():
        for t in range(12):
            y, state = net.step(x[:, t], state)
            arrays = tuple(tensor.numpy() for tensor in carried)
            other, carried = net.step(x[:, t], tuple(torch.from_numpy(a) for a in arrays))
            assert torch.equal(y, other)
    one, two = net.initial_state(1), net.initial_state(1)
    joined = tuple(np.concatenate([a, b]) for a, b in zip(one, two))
    assert [a.shape for a in joined] == [tuple(t.shape) for t in net.initial_state(2)]


@each_kind
def test_reset_of_one_row(kind):
    net, x = encoder(kind, context=6), windows()
    state, fresh = net.initial_state(4), net.initial_state(4)
    for t in range(9):
        _, state = net.step(x[:, t], state)
    rows = torch.tensor([False, True, False, True])
    before = [tensor.clone() for tensor in state]
    reset = net.reset(state, rows)
    assert all(torch.equal(one, other) for one, other in zip(state, before)), "changed in place"
    for t in range(9, 20):
        kept, state = net.step(x[:, t], state)
        new, fresh = net.step(x[:, t], fresh)
        mixed, reset = net.step(x[:, t], reset)
        torch.testing.assert_close(mixed[rows], new[rows], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(mixed[~rows], kept[~rows], rtol=1e-12, atol=1e-12)


@each_kind
def test_step_leaves_its_state_alone(kind):
    net, x = encoder(kind, context=6), windows()
    state = net.initial_state(4)
    for t in range(9):
        before = [tensor.clone() for tensor in state]
        first, after = net.step(x[:, t], state)
        assert all(torch.equal(one, other) for one, other in zip(state, before))
        assert torch.equal(net.step(x[:, t], state)[0], first)
        state = after


@each_kind
def test_rows_and_times_do_not_mix(kind):
    net, x, mask = encoder(kind), windows(), left_padded(4, 20)
    outputs = net(x, mask)
    changed = x.clone()
    changed[2] += SHIFT  # another row
    changed[:, 15:] -= 2 * SHIFT  # later
    after = net(changed, mask)
    rows = torch.tensor([0, 1, 3])
    torch.testing.assert_close(after[rows, :15], outputs[rows, :15], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(after[:3, 15], outputs[:3, 15])
    assert not torch.allclose(after[2, 7:15], outputs[2, 7:15])
    # What came first is still known at the end.
    changed = x.clone()
    changed[0, 0] += SHIFT
    assert not torch.allclose(net(changed, mask)[0, -1], outputs[0, -1])


def test_attention_by_hand():
    """Rotary attention in complex numbers: scores depend on exp(i frequency (t - s))."""
    heads, context, length = 2, 6, 9
    block, x = AttentionBlock(WIDTH, heads, context).double(), windows(1, length)
    found = block(x)[0][0].detach().numpy()
    weight, bias, out, out_bias = (p.detach().numpy() for p in block.parameters())
    projected = (x[0].numpy() @ weight.T + bias).reshape(length, 3, heads, WIDTH // heads)
    half = WIDTH // heads // 2
    as_complex = projected[..., :half] + 1j * projected[..., half:]
    frequencies = 10_000.0 ** -(np.arange(half) / half)
    expected = np.zeros((length, WIDTH))
    for t in range(length):
        seen = range(max(0, t - context + 1), t + 1)
        attended = []
        for head in range(heads):
            scores = []
            for s in seen:
                turn = np.exp(1j * frequencies * (t - s))
                product = as_complex[t, 0, head] * turn * as_complex[s, 1, head].conj()
                scores.append(product.sum().real / np.sqrt(2 * half))
            shares = np.exp(scores) / np.exp(scores).sum()
            attended.append(shares @ projected[list(seen), 2, head])
        expected[t] = out @ np.concatenate(attended) + out_bias
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)  # frequencies are float32


def test_the_transformer_forgets_what_left_its_context():
    net, x = encoder("transformer", layers=1, context=6), windows()
    changed = x.clone()
    changed[:, :14] += SHIFT  # steps 14 to 19 remain
    torch.testing.assert_close(net(changed)[:, -1], net(x)[:, -1], rtol=1e-12, atol=1e-12)
    changed[:, 14] += SHIFT
    assert not torch.allclose(net(changed)[:, -1], net(x)[:, -1])


def test_the_transformer_knows_order_not_date():
    net, x = encoder("transformer", layers=1, context=6), windows()
    turned = x.clone()
    turned[:, [15, 17]] = x[:, [17, 15]]
    assert not torch.allclose(net(turned)[:, -1], net(x)[:, -1])
    torch.testing.assert_close(net(x[:, 5:])[:, -1], net(x)[:, -1], rtol=1e-12, atol=1e-12)


@each_kind
def test_structure(kind):
    """Blocks add to what passes by: without what they add, the last norm is all there is."""
    net, x = encoder(kind, layers=3), windows()
    for block in net.blocks:
        for parameter in block.parameters():
            parameter.data.zero_()
    expected = torch.nn.functional.layer_norm(x, (WIDTH,))
    torch.testing.assert_close(net(x), expected)
    blocks = 6 if kind == "transformer" else 3
    assert len(net.blocks) == len(net.norms) == blocks


@each_kind
def test_dropout(kind):
    net, x = encoder(kind, dropout=0.5), windows(256, 8)
    expected, state = net(x), net.initial_state(256)
    torch.testing.assert_close(expected, encoder(kind)(x))
    net.train()
    before = torch.random.get_rng_state()
    first = net(x, generator=torch.Generator().manual_seed(3))
    again = net(x, generator=torch.Generator().manual_seed(3))
    other = net(x, generator=torch.Generator().manual_seed(4))
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was used"
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert not torch.allclose(first, expected)
    for t in range(8):  # acting never drops, whatever mode the network was left in
        y, state = net.step(x[:, t], state)
        torch.testing.assert_close(y, expected[:, t])


def test_dropout_keeps_the_mean():
    net = SequenceEncoder(WIDTH, "gru", dropout=0.25).train()
    dropped = net._dropped(torch.ones(100, 100, WIDTH), torch.Generator().manual_seed(0))
    assert abs(float((dropped == 0).float().mean()) - 0.25) < 0.01
    assert abs(float(dropped.mean()) - 1.0) < 0.01


@each_kind
def test_weights_travel(kind):
    net, x = encoder(kind), windows()
    other = SequenceEncoder(WIDTH, kind).double()
    other.load_state_dict(net.state_dict(), strict=True)
    assert torch.equal(other(x), net(x))
    assert torch.equal(copy.deepcopy(net)(x), net(x))


def test_the_backend_can_be_asked(monkeypatch):
    assert SequenceEncoder(WIDTH, "mamba").backend_used == "torch"
    compiled = SequenceEncoder(WIDTH, "mamba", backend="compiled")
    for functions, used in ((("forward", "backward"), "compiled"), (None, "torch")):
        monkeypatch.setattr(f"{MODULE}.compiled_functions", lambda found=functions: found)
        assert compiled.backend_used == used
    assert SequenceEncoder(WIDTH, "gru").backend_used == "torch"
    asked = []
    monkeypatch.setattr(f"{MODULE}.backend_on", lambda *given: asked.append(given) or "fused")
    assert SequenceEncoder(WIDTH, "mamba", backend="auto").backend_used == "fused"
    assert asked == [("auto", torch.device("cpu"))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "mambo"}, "Did you mean 'mamba'"),
        ({"kind": "mamba2"}, "Mamba-2 is another network"),
        ({"kind": "Mamba-2"}, "'mamba' is Mamba-1"),
        ({"layers": 0}, "layers=0"),
        ({"width": 0}, "width=0"),
        ({"kind": "transformer", "context": 0}, "context=0"),
        ({"kind": "transformer", "heads": 3}, r"multiple of 2 x heads, such as 18"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"dropout": -0.1}, "dropout=-0.1"),
        ({"backend": "cuda"}, "backend='cuda'"),
        ({"memory": "keep"}, "memory='keep'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UserError, match=message):
        SequenceEncoder(**({"width": WIDTH} | options))


def test_options_reach_the_blocks(monkeypatch):
    monkeypatch.setattr(mamba, "fused_kernel", lambda: None)
    net = SequenceEncoder(WIDTH, "mamba", layers=3, memory="store", backend="torch")
    assert [(b.memory, b.backend) for b in net.blocks] == [("store", "torch")] * 3
    net = SequenceEncoder(WIDTH, "transformer", context=7, heads=2)
    assert (net.blocks[0].context, net.blocks[0].heads) == (7, 2)
    with pytest.raises(UserError, match="selective_scan_cuda"):
        SequenceEncoder(WIDTH, "mamba", backend="fused")
