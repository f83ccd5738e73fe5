"""Networks of yang-song/score_sde (JAX): DDPM, DDPM++ and NCSN++ in flax.

Source of names and settings: https://github.com/yang-song/score_sde; Song et al. 2021, arXiv:2011.13456.
"""

from __future__ import annotations

from repro.released.flax_unets import state_dict
from repro.released.song_unets import settings

__all__ = ["settings", "state_dict"]
