from .format import DiffusersFormat as DiffusersFormat
