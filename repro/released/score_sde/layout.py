"""Networks of yang-song/score_sde_pytorch: ``ddpm`` and ``ncsnpp`` (DDPM++, NCSN++), with their averaged weights.

Source of names and settings: https://github.com/yang-song/score_sde_pytorch; Song et al. 2021, arXiv:2011.13456.
"""

from __future__ import annotations

from repro.released.song_unets import settings, shadow_names, state_dict, with_shadow

__all__ = ["settings", "shadow_names", "state_dict", "with_shadow"]
