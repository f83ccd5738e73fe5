from .base import Command as Command, Executor as Executor, Ready as Ready
from .local import Local as Local
from .ray import Ray as Ray
from .slurm import Slurm as Slurm
