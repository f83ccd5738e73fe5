"""Plug-ins for repro: installing this package is all it takes to use them by name."""
