"""Drawings: plain functions from arrays to matplotlib figures."""
