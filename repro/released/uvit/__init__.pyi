from .format import UViTFormat as UViTFormat
