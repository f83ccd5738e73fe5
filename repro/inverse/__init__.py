"""Inverse problems: what is measured of an image, and sampling under a measurement."""
