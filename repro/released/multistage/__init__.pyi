from .format import MultistageFormat as MultistageFormat
