"""Forward operators of inverse problems: what is measured of an image."""

from repro.inverse.operators.base import Operator

__all__ = ["Operator"]
