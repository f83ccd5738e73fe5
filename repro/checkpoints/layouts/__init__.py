"""Layouts of author-released networks: settings and state dicts of other projects, translated into ours.

Each module has ``settings(record) -> {"name", "args"}``, the record of our network for a constructor record of the
other project, and ``state_dict(foreign, network) -> dict``, the tensors of a released file under our names.
"""
