"""The U-Net of openai/consistency_models (``cm/unet.py``, class UNetModel).

Source of names and settings: https://github.com/openai/consistency_models; Song et al. 2023, arXiv:2303.01469.
"""

from __future__ import annotations

from repro.released.openai_unets import settings, state_dict

__all__ = ["settings", "state_dict"]
