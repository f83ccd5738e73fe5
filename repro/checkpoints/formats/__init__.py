"""Formats of author-released checkpoints, each a plug-in of the group ``repro.checkpoints``."""
