from .format import EDMFormat as EDMFormat
