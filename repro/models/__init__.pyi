from .base import GenerativeModule as GenerativeModule, RecordedModule as RecordedModule
from .decoded import Decoded as Decoded
from .exact import Exact as Exact
from .text_to_image import TextToImage as TextToImage
