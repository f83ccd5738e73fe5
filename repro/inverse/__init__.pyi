from .posterior import PosteriorSampler as PosteriorSampler
from .problem import Problem as Problem
from .tasks import Deblur as Deblur, Inpaint as Inpaint, Inverse as Inverse, SuperResolution as SuperResolution
