from .load import load as load
from .loading import load_module as load_module
from .native import AtomicCheckpointIO as AtomicCheckpointIO, read_checkpoint as read_checkpoint
from .weights import load_weights as load_weights
