"""What is learned beside latents: contrast with a bank of negatives, and rare successes."""

import numpy as np
import pytest
import torch

from gcrl_gym.networks.latents import MemoryBank, SuccessHead, info_nce


def contrast(z, after, bank, temperature):
    """InfoNCE, one anchor at a time."""
    z, after = z / z.norm(dim=1, keepdim=True), after / after.norm(dim=1, keepdim=True)
    total = 0.0
    for anchors, partners in ((z, after), (after, z)):
        for i, anchor in enumerate(anchors):
            logits = [anchor @ other / temperature for other in [*partners, *bank]]
            total = total + torch.logsumexp(torch.stack(logits), 0) - logits[i]
    return total / (2 * len(z))


def test_the_weight_of_successes():
    head = SuccessHead(3, (4,))
    batches = [torch.tensor([1.0] * k + [0.0] * (32 - k)) for k in (8, 1, 3)]
    assert float(head.positive_weight(batches[0])) == pytest.approx(3.0)  # of the first batch alone
    shares, factors = [8 / 32], [0.01]
    for batch in batches[1:]:
        shares.append(float(batch.mean()))
        factors = [0.99 * factor for factor in factors] + [0.01]
        share = np.average(shares, weights=factors)
        assert float(head.positive_weight(batch)) == pytest.approx((1 - share) / share, rel=1e-4)
    assert float(SuccessHead(3, (4,)).positive_weight(torch.zeros(32))) == 100.0
    assert float(SuccessHead(3, (4,)).positive_weight(torch.ones(32))) == pytest.approx(0.1)


def test_empty_slots_are_no_negatives():
    z, after = torch.nn.functional.normalize(torch.randn(2, 6, 4), dim=-1)
    bank = MemoryBank(10, 4)
    expected = contrast(z, after, [], 0.1)
    torch.testing.assert_close(info_nce(z, after, bank, 0.1), expected)
    bank.push(after[:3])
    torch.testing.assert_close(info_nce(z, after, bank, 0.1), contrast(z, after, after[:3], 0.1))


def test_the_bank_is_a_ring():
    bank, vectors = MemoryBank(5, 1), torch.arange(20.0)[:, None]
    for start, end, expected in ((0, 3, [0, 1, 2, 0, 0]), (3, 7, [5, 6, 2, 3, 4])):
        bank.push(vectors[start:end])
        assert bank.slots[:, 0].tolist() == expected
    bank.push(vectors[7:20])  # more than it holds: the latest
    assert sorted(bank.slots[:, 0].tolist()) == [15, 16, 17, 18, 19]
