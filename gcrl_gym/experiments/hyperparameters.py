"""An agent's hyperparameters, read from its signature: types, defaults and help texts.

The signature is the only place where they are written; flags, checks and run files derive from it.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gcrl_gym.errors import UserError, nearest

if TYPE_CHECKING:
    from gcrl_gym.agents.base import OfflineAgent

_PLAIN = (bool, int, float, str, type(None))
_RESERVED = {"seed": "the run", "dataset": "the run", "env": "the run"}


@dataclass(frozen=True)
class Hyperparameter:
    """One keyword argument of an agent.

    Attributes:
        name: of the argument.
        default: value where the user gives none.
        annotation: its type.
        plain_type: the part of the type that can be written in a file or flag; ``None`` for
            arguments that are Python objects only, such as samplers.
        help: its line in the docstring.
    """

    name: str
    default: Any
    annotation: Any
    plain_type: Any
    help: str


def hyperparameters(agent: type[OfflineAgent]) -> dict[str, Hyperparameter]:
    """Return the hyperparameters of an agent class by name, its own before the common ones."""
    hints: dict[str, Any] = {}
    helps: dict[str, str] = {}
    for kind in reversed(agent.__mro__):
        if "signature" in dir(kind) and "__init__" in vars(kind):  # the base class and below
            hints |= typing.get_type_hints(vars(kind)["__init__"])
            texts = _argument_help(kind.__doc__ or "")
            helps |= {k: v for k, v in texts.items() if not v.startswith("see ")}
    found = {}
    for name, parameter in agent.signature().items():
        if name not in _RESERVED:
            annotation = hints.get(name, Any)
            plain = _plain_part(annotation)
            text = helps.get(name, "")
            found[name] = Hyperparameter(name, parameter.default, annotation, plain, text)
    return found


def check_hyperparameters(agent: type[OfflineAgent], given: dict[str, Any]) -> None:
    """Check names and types before anything is spent.

    Raises:
        UserError: an unknown name (with the nearest one), or a value of another type.
    """
    known = hyperparameters(agent)
    for name, value in given.items():
        if name in _RESERVED:
            raise UserError(f"{name!r} belongs to {_RESERVED[name]}, not to the agent's arguments.")
        if name not in known:
            raise UserError(f"{agent.__name__} has no argument {name!r}.{nearest(name, known)}")
        annotation = known[name].annotation
        if not _fits(value, annotation):
            hint = nearest(value, _choices(annotation)) if isinstance(value, str) else ""
            raise UserError(
                f"{agent.__name__}'s {name} is {value!r}, expected {type_name(annotation)}.{hint}"
            )


def type_name(annotation: Any) -> str:
    """Return a type as a user would write it: ``float``, ``'sinkhorn' | 'exact'``."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return " | ".join(repr(choice) for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_name(part) for part in arguments)
    if annotation is type(None):
        return "None"
    return getattr(annotation, "__name__", str(annotation)) if origin is None else str(annotation)


def _plain_part(annotation: Any) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _PLAIN or origin is Literal:
        return annotation
    if origin is tuple and arguments[0] in _PLAIN:
        return annotation
    if origin in (typing.Union, types.UnionType):
        parts = [part for part in map(_plain_part, arguments) if part is not None]
        real = [part for part in parts if part is not type(None)]
        return typing.Union[tuple(parts)] if real else None  # noqa: UP007 - built at run time
    return None


def _fits(value: Any, annotation: Any) -> bool:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in arguments)
    if origin is tuple:
        return isinstance(value, (tuple, list)) and all(_fits(v, arguments[0]) for v in value)
    if annotation in (int, float):
        numbers = (int,) if annotation is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool)
    if origin is not None:
        return callable(value)
    return not isinstance(annotation, type) or isinstance(value, annotation)


def _choices(annotation: Any) -> Iterable[str]:
    if typing.get_origin(annotation) is Literal:
        yield from (choice for choice in typing.get_args(annotation) if isinstance(choice, str))
    for part in typing.get_args(annotation):
        yield from _choices(part)


def _argument_help(docstring: str) -> dict[str, str]:
    """Return name -> text of the ``Args:`` section of a Google docstring."""
    section = re.search(r"\n\s*Args:\n(.*?)(?:\n\s*\n|\Z)", inspect.cleandoc(docstring), re.DOTALL)
    entries = re.findall(
        r"^    (\w+): (.*(?:\n {8}.*)*)", section.group(1) if section else "", re.MULTILINE
    )
    return {name: re.sub(r"\s+", " ", text).replace("``", "") for name, text in entries}
