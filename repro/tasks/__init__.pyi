from .base import Conditional as Conditional, Task as Task, Unconditional as Unconditional
from .finetune import Finetune as Finetune
