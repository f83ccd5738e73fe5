from .data import check_data as check_data
from .denoisers import check_denoiser as check_denoiser
from .descriptors import check_descriptor as check_descriptor
from .devices import FakeDevice as FakeDevice, Waits as Waits, WithoutWaiting as WithoutWaiting
from .executors import check_executor as check_executor
from .formats import check_format as check_format
from .kernels import check_kernel as check_kernel
from .metrics import check_pair_metric as check_pair_metric, check_set_metric as check_set_metric
from .networks import check_network as check_network
from .operators import check_operator as check_operator
from .parameterizations import check_parameterization as check_parameterization
from .samplers import check_sampler as check_sampler
from .training import check_training as check_training
