from .base import Conditional as Conditional, Plan as Plan, Task as Task, Unconditional as Unconditional
from .finetune import Finetune as Finetune
