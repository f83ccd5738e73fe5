from .format import ScoreSDEFormat as ScoreSDEFormat
