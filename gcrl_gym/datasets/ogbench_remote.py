"""Where OGBench's files can be downloaded; neither sizes nor checksums are published."""

from __future__ import annotations

from gcrl_gym.datasets.ogbench_catalog import file_name
from gcrl_gym.datasets.sources import Remote

_SERVERS = (
    "https://rail.eecs.berkeley.edu/datasets/ogbench",
    "https://huggingface.co/datasets/zhouzypaul/ogbench_datasets/resolve/main",
)


def remote(dataset_id: str) -> Remote | None:
    """Return the addresses of the file of an id, None for the 100M sets, which are folders.

    Raises:
        UserError: the id does not have the form of OGBench's.
    """
    file = file_name(dataset_id)
    if not file.endswith(".npz"):
        return None
    return Remote(tuple(f"{server}/{file}" for server in _SERVERS))
