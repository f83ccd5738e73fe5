from .banks.bank import Bank as Bank
from .checkpoints.loading import load as load
from .comparison.comparing import compare as compare
from .drawing.bank import draw as draw, sample as sample
from .drawing.encoding import encode as encode
from .drawing.scoring import score as score
from .errors import UserError as UserError
from .noise import NoiseStream as NoiseStream, draw_noise as draw_noise
from .registry import build as build, names as names
from .training.trainer import Trainer as Trainer
