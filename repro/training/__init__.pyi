from .base import LossModule as LossModule, TrainingModule as TrainingModule
from .callbacks import (
    OptimalLoss as OptimalLoss,
    RunCheckpoint as RunCheckpoint,
    SampleGrid as SampleGrid,
    Throughput as Throughput,
)
from .consistency import ConsistencyDistillation as ConsistencyDistillation, ConsistencyTraining as ConsistencyTraining
from .copy_detection import CopyDetection as CopyDetection
from .diffusion import Diffusion as Diffusion
from .fine_tuning import FineTuning as FineTuning
from .gan import GAN as GAN
from .optimal_loss import losses_by_level as losses_by_level, optimal_loss as optimal_loss, optimum_of as optimum_of
from .optimization import ema_decay as ema_decay, update_average as update_average
from .progressive import ProgressiveDistillation as ProgressiveDistillation
from .trainer import Trainer as Trainer
from .vae import VAE as VAE
