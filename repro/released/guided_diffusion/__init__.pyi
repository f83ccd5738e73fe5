from .format import GuidedDiffusionFormat as GuidedDiffusionFormat
