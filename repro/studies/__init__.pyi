from .base import Study as Study
from .baselines import Baselines as Baselines
from .conditional import Conditional as Conditional
from .convergence import Convergence as Convergence
from .descriptors import Descriptors as Descriptors
from .encoding import Encoding as Encoding
from .finetune import Finetune as Finetune
from .imagenet import ImageNet as ImageNet
from .inpaint import Inpaint as Inpaint
from .jacobian import Jacobian as Jacobian
from .jobs import Job as Job, Size as Size
from .manifold import Manifold as Manifold
from .mog import Mog as Mog
from .plan import Drawn as Drawn, Measured as Measured, Plan as Plan, Trained as Trained, seeded as seeded
from .quickstart import Quickstart as Quickstart
from .recovery import Recovery as Recovery
from .regimes import Regimes as Regimes
from .report import Report as Report, controls_of as controls_of, rate_cells as rate_cells, rate_text as rate_text
from .scales import SCALES as SCALES, Judge as Judge, Scale as Scale
from .similarity import Similarity as Similarity
from .systems import (
    CONDITIONAL_SYSTEMS as CONDITIONAL_SYSTEMS,
    SYSTEMS as SYSTEMS,
    System as System,
    draw as draw,
    three_systems as three_systems,
    train as train,
    trio as trio,
)
from .text_to_image import TextToImagePrompt as TextToImagePrompt
from .theory import Theory as Theory
from .trajectory import Trajectory as Trajectory
from .work import check_finished as check_finished, run_job as run_job
