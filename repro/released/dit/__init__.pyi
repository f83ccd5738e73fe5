from .format import DiTFormat as DiTFormat
