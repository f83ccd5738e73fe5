"""Descriptors: images to unit vectors; list them with ``repro plugins descriptors``."""

from repro.descriptors.base import Descriptor, cached_features, features_of_bank
from repro.descriptors.default import default_descriptor

__all__ = ["Descriptor", "cached_features", "default_descriptor", "features_of_bank"]
