"""Tiny Stable Diffusion pipelines and autoencoders, built from settings and numbered random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

WORDS = ["a", "red", "blue", "cat", "dog", "on", "grass"]


def tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer of a few words, from its vocabulary files."""
    letters = sorted({letter for word in WORDS for letter in word})
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: place for place, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)


def autoencoder(seed: int = 0, latents: int = 4) -> AutoencoderKL:
    """Halves images twice; latents of four channels."""
    torch.manual_seed(seed)
    blocks = 3
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * blocks,
        up_block_types=["UpDecoderBlock2D"] * blocks,
        block_out_channels=[8] * blocks,
        layers_per_block=1,
        latent_channels=latents,
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=0.18215,
    ).eval()


def pipeline(folder: Path, seed: int = 0, scheduler: object = None, strength: float = 1.0) -> Path:
    """A pipeline with images 3x32x32, saved in a folder; its network's answers are multiplied by ``strength``."""
    folder.mkdir()
    torch.manual_seed(seed)
    words = tokenizer(folder)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=[8, 16],
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    with torch.no_grad():
        unet.conv_out.weight *= strength
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )
    made = StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=text,
        tokenizer=words,
        unet=unet,
        scheduler=scheduler
        or DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.save_pretrained(folder)
    return folder


_DDPM = {
    "sample_size": 8,
    "block_out_channels": (8, 16, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": None,
    "norm_num_groups": 4,
    "norm_eps": 1e-6,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
}


def ddpm(folder: Path, seed: int = 0, scheduler: dict[str, object] | None = None, **changes: object) -> Path:
    """A DDPMPipeline with images 3x8x8 and settings as google/ddpm-cifar10-32 has them, saved in a folder."""
    torch.manual_seed(seed)
    unet = UNet2DModel(**_DDPM | changes)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "norm" in name:
                parameter += 0.2 * torch.randn(parameter.shape)
        unet.conv_out.weight *= 0.3  # images in the range of images, so that few are cut
    DDPMPipeline(unet, DDPMScheduler(**scheduler or {})).save_pretrained(folder)
    return folder
