from .archive import ImageArchive as ImageArchive
from .arrays import ImageArray as ImageArray
from .base import Facts as Facts, ImageData as ImageData
from .digits import Digits as Digits
from .downloads import CIFAR10 as CIFAR10, CIFAR100 as CIFAR100, MNIST as MNIST
from .held_out import HeldOut as HeldOut
from .mixture import LowRankMixture as LowRankMixture
from .source import ArraySource as ArraySource, ImageSource as ImageSource
from .stream import BatchStream as BatchStream
