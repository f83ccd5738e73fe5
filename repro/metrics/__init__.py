"""Scores: pure functions in :mod:`repro.metrics.functional`, classes with integer states here."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
