"""Comparison of sample banks: who draws the same image from the same noise, and who copies the training set."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
