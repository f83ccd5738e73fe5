from .base import Run as Run, Sampler as Sampler, Step as Step
from .consistency import Consistency as Consistency
from .dpm_solver import DPMSolver as DPMSolver
from .euler import Euler as Euler
from .heun import Heun as Heun
from .ode import RK45 as RK45
from .stochastic import Ancestral as Ancestral, EDMStochastic as EDMStochastic
