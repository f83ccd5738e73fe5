"""Layers shared between network families."""
