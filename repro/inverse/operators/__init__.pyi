from .base import Operator as Operator
from .filters import (
    Downsample as Downsample,
    GaussianBlur as GaussianBlur,
    HighDynamicRange as HighDynamicRange,
    MotionBlur as MotionBlur,
)
from .masks import CentreMask as CentreMask, MaskFile as MaskFile, RandomMask as RandomMask
