"""Agents, found by listing this folder: a file whose class is an OfflineAgent and has a ``name``.

``get_agent("pogo")`` imports that module on demand; ``"package.module:Class"`` reaches agents of
third parties. Listing the names imports nothing.
"""

from __future__ import annotations

import functools
import importlib
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

from gcrl_gym.errors import UserError, nearest

if TYPE_CHECKING:
    from gcrl_gym.agents.awac import AWAC
    from gcrl_gym.agents.base import OfflineAgent
    from gcrl_gym.agents.cql import CQL
    from gcrl_gym.agents.crl import CRL
    from gcrl_gym.agents.edac import EDAC
    from gcrl_gym.agents.fql import FQL
    from gcrl_gym.agents.gcbc import GCBC
    from gcrl_gym.agents.gciql import GCIQL
    from gcrl_gym.agents.gcivl import GCIVL
    from gcrl_gym.agents.hiql import HIQL
    from gcrl_gym.agents.iql import IQL
    from gcrl_gym.agents.opso import OPSO
    from gcrl_gym.agents.pogo import POGO
    from gcrl_gym.agents.qrl import QRL
    from gcrl_gym.agents.rebrac import ReBRAC
    from gcrl_gym.agents.sac_n import SACN
    from gcrl_gym.agents.td3_bc import TD3BC

__all__ = [
    "AWAC",
    "CQL",
    "CRL",
    "EDAC",
    "FQL",
    "GCBC",
    "GCIQL",
    "GCIVL",
    "HIQL",
    "IQL",
    "OPSO",
    "POGO",
    "QRL",
    "SACN",
    "TD3BC",
    "OfflineAgent",
    "ReBRAC",
    "agent_names",
    "get_agent",
    "load",
]

_CLASS_LINE = re.compile(r"^class (\w+)\((?:Offline|Chain)Agent\):", re.MULTILINE)
_NAME_LINE = re.compile(r'^    name = "', re.MULTILINE)  # a base class has none


@functools.cache
def _classes() -> dict[str, str]:
    """Return the class name of each agent of this folder by module name, read from the source."""
    found = {}
    for file in sorted(resources.files(__name__).iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".py"):
            text = file.read_text(encoding="utf-8")
            match = _CLASS_LINE.search(text)
            if match and _NAME_LINE.search(text):
                found[file.name.removesuffix(".py")] = match.group(1)
    return found


def agent_names() -> list[str]:
    """Return the names of the agents in this folder, sorted, without importing them."""
    return list(_classes())


def get_agent(name: str) -> type[OfflineAgent]:
    """Return an agent class for its name (``"pogo"``, ``"POGO"``) or ``"package.module:Class"``.

    Raises:
        UserError: unknown name, or something that is not an agent.
    """
    from gcrl_gym.agents.base import OfflineAgent

    module_name, _, class_name = name.partition(":")
    if not class_name:
        plain = {key.replace("_", ""): key for key in agent_names()}
        key = plain.get(name.lower().replace("_", "").replace("-", ""))
        if key is None:
            hint = nearest(name.lower(), agent_names())
            raise UserError(f"Unknown agent {name!r}; there are {', '.join(agent_names())}.{hint}")
        module_name, class_name = f"{__name__}.{key}", _classes()[key]
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"Cannot import the agent {name!r}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, OfflineAgent)):
        raise UserError(f"{name!r} is not a subclass of gcrl_gym.agents.OfflineAgent.")
    return found


def load(path: Any, env: Any = None, dataset: Any = None, **overrides: Any) -> OfflineAgent:
    """Read an archive of any agent in this folder, whichever it holds.

    Raises:
        UserError: unreadable archive, or an agent that is not in this folder.
    """
    from gcrl_gym.checkpoint import read_archive

    header, _ = read_archive(path)
    if header.get("agent") not in agent_names():
        raise UserError(
            f"{path} holds the agent {header.get('agent')!r}, which is not one of "
            f"{', '.join(agent_names())}; load it with its own class."
        )
    return get_agent(header["agent"]).load(path, env, dataset, **overrides)


def __getattr__(name: str) -> Any:
    """Return an agent class by its class name, importing its module on first use."""
    if name == "OfflineAgent":
        from gcrl_gym.agents.base import OfflineAgent

        return OfflineAgent
    for module, class_name in _classes().items():
        if class_name == name:
            return get_agent(module)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
