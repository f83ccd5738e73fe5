from .base import Model as Model, Recorded as Recorded
from .decoded import Decoded as Decoded, Decoder as Decoder
from .denoising import Denoising as Denoising, DenoisingModel as DenoisingModel
from .descriptor import CopyDescriptor as CopyDescriptor
from .exact import Exact as Exact
from .gan import GANModel as GANModel
from .latents import latents as latents
from .pipeline import Pipeline as Pipeline
from .text_to_image import TextToImage as TextToImage
from .vae import VAEModel as VAEModel
from .weights import load_weights as load_weights
