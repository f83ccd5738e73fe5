"""Checks of our networks, kernels, samplers, losses and scores against recorded outputs of reference implementations.

Each module holds the checks of one reference project; :mod:`parity_checks.checks` says which fixture needs which.
"""
