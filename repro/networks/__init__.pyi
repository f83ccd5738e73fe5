from .adm import ADM as ADM
from .base import Network as Network
from .dit import DiT as DiT
from .gan import (
    ConvDiscriminator as ConvDiscriminator,
    ConvGenerator as ConvGenerator,
    ResidualDiscriminator as ResidualDiscriminator,
    ResidualGenerator as ResidualGenerator,
)
from .mlp import MLP as MLP
from .multistage import MultistageUNet as MultistageUNet
from .song_unet import SongUNet as SongUNet
from .sscd import SSCDNetwork as SSCDNetwork
from .uvit import UViT as UViT
from .vae import VAE as VAE
