"""What all tests share: no test reaches the network by accident."""

import pytest


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch):
    """Tests of downloads talk to a server of their own and switch this off."""
    monkeypatch.setenv("GCRL_OFFLINE", "1")
