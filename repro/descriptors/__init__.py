"""Descriptors: images to unit vectors; list them with ``repro plugins descriptors``."""

from repro.descriptors.base import Descriptor, cached_features, features_of_bank

__all__ = ["Descriptor", "cached_features", "features_of_bank"]
