"""Which parameters of a network are trained, and what keeps the others as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from repro.errors import UserError, nearest
from repro.networks import Network

__all__ = ["chosen_parameters", "frozen_norms"]

_NAMED = 4


def chosen_parameters(network: nn.Module, parameters: Sequence[str] | str) -> set[str]:
    """Finds the names of the parameters that ``attention``, ``all`` or shell globs mean.

    Args:
        network: The network.
        parameters: ``attention`` (what the network declares as such, see
            :attr:`repro.networks.base.Network.attention_parameters`), ``all``, or shell globs on parameter names.

    Raises:
        UserError: a network without attention, no pattern, or one that matches nothing.

    Example:
        >>> sorted(chosen_parameters(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), ["*.bias"]))
        ['0.bias', '1.bias']
    """
    names = [name for name, _ in network.named_parameters()]
    if parameters == "all":
        return set(names)
    if parameters == "attention":
        declared = getattr(network, "attention_parameters", Network.attention_parameters)
        chosen = {name for pattern in declared for name in names if fnmatchcase(name, pattern)}
        if not chosen:
            raise UserError(
                f"parameters is 'attention', but this {type(network).__name__} has none; type --model.parameters all, "
                f"or patterns of names such as {_examples(names)}"
            )
        return chosen
    patterns = [parameters] if isinstance(parameters, str) else list(parameters)
    if not patterns:
        raise UserError("parameters is an empty list; give attention, all, or patterns of parameter names")
    chosen = set()
    for pattern in patterns:
        matched = {name for name in names if fnmatchcase(name, pattern)}
        if not matched:
            raise UserError(f"no parameter matches {pattern!r}; {_nearest(pattern, names)}")
        chosen |= matched
    return chosen


def _nearest(pattern: str, names: Sequence[str]) -> str:
    """Names to take instead of a pattern that matches nothing."""
    words = {"attention", "all", *names, *(part for name in names for part in name.split(".") if not part.isdigit())}
    near = nearest(pattern.strip("*."), words)
    if near in ("attention", "all"):
        return f"did you mean {near}?"
    alike = [name for name in names if near is not None and near in (name, *name.split("."))]
    return f"names near it: {_examples(alike)}" if alike else f"names are such as {_examples(names)}"


def _examples(names: Sequence[str]) -> str:
    """A few names spread over all of them, the first and the last included."""
    if len(names) <= _NAMED:
        return ", ".join(names)
    return ", ".join(names[i * (len(names) - 1) // (_NAMED - 1)] for i in range(_NAMED))


def frozen_norms(network: nn.Module) -> Iterator[nn.Module]:
    """Computes normalisations with running statistics none of whose parameters is trained."""
    for module in network.modules():
        trained = any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        if isinstance(module, _NormBase) and module.track_running_stats and not trained:
            yield module
