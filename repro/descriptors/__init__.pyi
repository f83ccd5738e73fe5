from .base import Descriptor as Descriptor, cached_features as cached_features, features_of_bank as features_of_bank
from .default import default_descriptor as default_descriptor
from .mapped import describe_source as describe_source, open_features as open_features
from .onnx import ONNX as ONNX
from .pixels import Pixels as Pixels
from .small import SmallSSCD as SmallSSCD
from .sscd import SSCD as SSCD
from .timm_models import Timm as Timm
