"""An agent as data: what goes into an archive, and how an agent is made from one."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

import gymnasium
import numpy as np
import torch
from minari.serialization import deserialize_space, serialize_space
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from torch import Tensor

from gcrl_gym import datasets
from gcrl_gym.agents.experience import Experience
from gcrl_gym.agents.inputs import check_unknown
from gcrl_gym.agents.numerics import Numerics
from gcrl_gym.agents.schedules import CosineSchedule
from gcrl_gym.checkpoint import read_archive, write_archive
from gcrl_gym.errors import UserError

if TYPE_CHECKING:
    from gcrl_gym.agents.base import OfflineAgent

AgentType = TypeVar("AgentType", bound="OfflineAgent")

# Written to the archive as what they describe, not as what they are called on this machine.
_NOT_STORED = frozenset({"device", "tensorboard_log", "verbose"})
_SCHEDULES = {
    "LinearSchedule": LinearSchedule,
    "ConstantSchedule": ConstantSchedule,
    "CosineSchedule": CosineSchedule,
}


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide what a number comes out as."""
    from gcrl_gym import __version__

    return {
        "gcrl_gym": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "gymnasium": gymnasium.__version__,
        "stable_baselines3": importlib.metadata.version("stable_baselines3"),
    }


def save(agent: OfflineAgent, path: Any, buffer: bool | None = None) -> None:
    """Write the agent's archive; see ``OfflineAgent.save``."""
    header = {
        "agent": agent.name,
        "class": f"{type(agent).__module__}:{type(agent).__qualname__}",
        "versions": versions(),
        "hyperparameters": {
            key: _to_json(key, getattr(agent, key))
            for key in agent.signature()
            if key not in _NOT_STORED
        },
        "observation_space": serialize_space(agent.observation_space),
        "action_space": serialize_space(agent.action_space),
        "counters": {"num_timesteps": agent.num_timesteps, "n_updates": agent._n_updates},
        "entropy": agent.generators.entropy,
        "numpy_generators": agent.generators.numpy_states(),
        "trained_on": agent.trained_on,
        "numerics": dataclasses.asdict(agent.numerics) if agent.numerics else None,
        "learning_rates": {
            name: optimizer.param_groups[0]["lr"] for name, optimizer in agent.optimizers.items()
        },
    }
    tensors = _tensors(agent)
    if agent.online is not None:
        header["online"], found = agent.online.to_archive(agent, buffer)
        tensors |= {f"online/{name}": tensor for name, tensor in found.items()}
    write_archive(path, header, tensors)


def load(
    cls: type[AgentType], path: Any, env: Any, dataset: Any, overrides: dict[str, Any]
) -> AgentType:
    """Make an agent of ``cls`` from an archive."""
    header, tensors = read_archive(path)
    if header.get("agent") != cls.name:
        raise UserError(
            f"{path} holds the agent {header.get('agent')!r}, not {cls.name!r}; load it with its "
            "own class, or with gcrl_gym.agents.load."
        )
    signature = cls.signature()
    check_unknown(set(overrides) - set(signature), signature, f"{cls.__name__}.load")
    try:
        stored = {
            key: _from_json(value)
            for key, value in header["hyperparameters"].items()
            if key not in overrides
        }
        kinds = (header["observation_space"], header["action_space"])
        shapes = (deserialize_space(kinds[0]), deserialize_space(kinds[1]))
        agent = cls(env, **(stored | overrides), _spaces=shapes)
        _restore(agent, header, tensors)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise UserError(f"{path} is not a complete {cls.name} archive: {error}") from error
    if dataset is not None:
        agent.set_dataset(dataset, statistics=False)
    return agent


def parameters(agent: OfflineAgent) -> dict[str, dict[str, Any]]:
    """Return the state dicts of the policy and of every optimiser, by name."""
    states = {f"optimizer/{name}": opt.state_dict() for name, opt in agent.optimizers.items()}
    return {"policy": agent.policy.state_dict(), **states}


def set_parameters(agent: OfflineAgent, source: Any, exact_match: bool, device: Any) -> None:
    """Put state dicts back, from ``parameters`` or from an archive of the same agent."""
    if not isinstance(source, dict):
        source = parameters(type(agent).load(source, device=device))
    expected = set(parameters(agent))
    if exact_match and set(source) != expected:
        raise UserError(f"Parameters {sorted(source)}; expected {sorted(expected)}.")
    for name, state in source.items():
        if name == "policy":
            agent.policy.load_state_dict(state, strict=exact_match)
        else:
            agent.optimizers[name.removeprefix("optimizer/")].load_state_dict(state)


def warn_changed_numerics(agent: OfflineAgent) -> None:
    """Warn when training goes on with other speed settings than the archive was made with.

    Bits then differ from an uninterrupted run although everything else is restored exactly.
    """
    stored, agent.stored_numerics = agent.stored_numerics, None
    if stored is not None and stored != agent.numerics:
        warnings.warn(
            f"The archive was trained with {stored}, this run uses {agent.numerics}: results stay "
            "correct but are not bit-identical to an uninterrupted run.",
            stacklevel=5,
        )


def _tensors(agent: OfflineAgent) -> dict[str, Tensor]:
    found = {f"policy/{name}": tensor for name, tensor in agent.policy.state_dict().items()}
    for name, optimizer in agent.optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            found |= {f"optimizer/{name}/{index}/{key}": value for key, value in state.items()}
    found |= {f"generator/{name}": state for name, state in agent.generators.states().items()}
    return found


def _restore(agent: OfflineAgent, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    agent.policy.load_state_dict(_under("policy/", tensors))
    for name, optimizer in agent.optimizers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in _under(f"optimizer/{name}/", tensors).items():
            index, entry = key.split("/")
            state.setdefault(int(index), {})[entry] = value
        groups = optimizer.state_dict()["param_groups"]
        groups[0]["lr"] = header["learning_rates"][name]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    # Archives from before there was online training have one generator of NumPy's.
    numpy = header.get("numpy_generators")
    numpy = {"batches": header["batch_generator"]} if numpy is None else numpy
    agent.generators.restore(int(header["entropy"]), numpy, _under("generator/", tensors))
    agent.num_timesteps = int(header["counters"]["num_timesteps"])
    agent._n_updates = int(header["counters"]["n_updates"])
    agent.trained_on = dict(header.get("trained_on", {}))
    if header["numerics"] is not None:
        agent.stored_numerics = Numerics(**header["numerics"])
    if "online" in header:
        found = _under("online/", tensors)
        agent.online = Experience.from_archive(agent, header["online"], found)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }


def _is_sampler(kind: type) -> bool:
    """Return whether a class is one of the package's samplers, which are made of data alone."""
    public = getattr(datasets, kind.__name__, None) is kind
    return public and kind.__name__.endswith("Sampler") and dataclasses.is_dataclass(kind)


def _to_json(key: str, value: Any) -> Any:
    if _is_sampler(type(value)):
        return {"sampler": type(value).__name__} | dataclasses.asdict(value)
    if isinstance(value, tuple(_SCHEDULES.values())):
        return {"schedule": type(value).__name__} | vars(value)
    if isinstance(value, FloatSchedule):
        return _to_json(key, value.value_schedule)
    if isinstance(value, tuple):
        return [_to_json(key, item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.integer, np.floating)):
        return value.item()
    # What cannot be written as data has to be given again to load().
    return {"not_stored": repr(value)}


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_json(item) for item in value)
    if not isinstance(value, dict):
        return value
    fields = {key: _from_json(item) for key, item in value.items()}
    if "sampler" in fields:
        name = fields.pop("sampler")
        kind = getattr(datasets, str(name), None)
        if not (isinstance(kind, type) and _is_sampler(kind)):
            raise UserError(f"The archive names an unknown sampler {name!r}; pass sampler=....")
        return kind(**fields)
    if "schedule" in fields:
        return _SCHEDULES[fields.pop("schedule")](**fields)
    raise UserError(
        f"The archive was saved with {fields.get('not_stored')}, which is code and not stored; "
        "pass that argument to load() again."
    )
