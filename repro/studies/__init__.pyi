from .base import Scale as Scale, Study as Study
from .baselines import Baselines as Baselines
from .conditional import Conditional as Conditional
from .descriptors import Descriptors as Descriptors
from .finetune import Finetune as Finetune
from .inpaint import Inpaint as Inpaint
from .jacobian import Jacobian as Jacobian
from .jobs import Executor as Executor, Job as Job, LocalExecutor as LocalExecutor
from .manifold import Manifold as Manifold
from .mog import Mog as Mog
from .quickstart import Quickstart as Quickstart
from .recovery import Recovery as Recovery
from .regimes import Regimes as Regimes
from .similarity import Similarity as Similarity
from .theory import Theory as Theory
