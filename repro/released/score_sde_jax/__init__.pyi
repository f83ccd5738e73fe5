from .format import ScoreSDEJAXFormat as ScoreSDEJAXFormat
