"""State dicts into models, strictly."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from repro.errors import UserError

__all__ = ["load_weights"]


def load_weights(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Loads a state dict strictly.

    Raises:
        UserError: a missing, unexpected or differently shaped tensor, naming the first one.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    extra = [key for key in state if key not in own]
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    if shapes:
        key = shapes[0]
        raise UserError(
            f"{source} does not fit the model: {key} is {tuple(state[key].shape)} there and "
            f"{tuple(own[key].shape)} here ({len(shapes)} tensors differ in shape)"
        )
    if missing or extra:
        kind, key = ("lacks", missing[0]) if missing else ("has the unknown", extra[0])
        raise UserError(
            f"{source} does not fit the model: it {kind} {key} ({len(missing)} missing, {len(extra)} unknown)"
        )
    module.load_state_dict(state)
