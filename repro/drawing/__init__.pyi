from .bank import draw as draw, draw_bank as draw_bank, sample as sample
from .drawing import Drawing as Drawing
from .encoding import encode as encode
from .processes import launch as launch
from .scores import Scores as Scores
from .scoring import score as score
from .systems import System as System, kind_of as kind_of, systems_of as systems_of
