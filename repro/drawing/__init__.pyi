from .sampling import bank_writer as bank_writer, sample as sample
from .scores import Scores as Scores
