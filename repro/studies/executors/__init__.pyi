from .base import Executor as Executor
from .local import Local as Local
from .ray import Ray as Ray
from .slurm import Slurm as Slurm
