from .loading import load as load, load_model as load_model, load_training as load_training
from .native import AtomicCheckpointIO as AtomicCheckpointIO, read_checkpoint as read_checkpoint
