"""Small Stable Diffusion pipelines that draw the digit that a prompt names."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from repro.data.arrays import read_arrays
from repro.images import to_float
from repro.models.pretrained import autoencoder_in, check_extra, pipeline_in

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

__all__ = ["DIGIT_PROMPT", "train_pipeline"]

DIGIT_PROMPT = "a photograph of the digit three"
"""One of the ten prompts that the pipelines know."""
_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_PROMPTS = tuple(DIGIT_PROMPT.replace("three", name) for name in _NAMES)
_TOKENS = 8
_BATCH, _LR, _UNPROMPTED = 32, 2e-3, 0.1


def train_pipeline(
    folder: Path, autoencoder: str, latents: str, third: int, seed: int, steps: int, start: str | None = None
) -> dict[str, Any]:
    """Trains a pipeline of the class ``StableDiffusionPipeline`` on a third of the digits, each under its prompt.

    As in Stable Diffusion, the autoencoder and the text encoder are frozen and the same for all; here the text encoder
    has random weights. The U-Net predicts v under the noise levels of Stable Diffusion and sees no prompt one time in
    ten, for guidance.

    Args:
        folder: Where diffusers' ``save_pretrained`` writes it.
        autoencoder: Folder of the autoencoder.
        latents: The ``.npz`` file of latents and labels.
        third: Which third of the digits: 0, 1 or 2.
        seed: Of the starting weights, the order of the images and the noise.
        steps: Batches of 32.
        start: Folder of the pipeline whose U-Net is trained on; None for a new one.

    Returns:
        ``pipeline``, the folder, and ``loss``, the mean over the last tenth of the steps.

    Raises:
        UserError: the extra ``diffusers`` is not installed.
    """
    check_extra("a pipeline of digits")
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    images, labels = read_arrays(latents)
    x_0 = to_float(torch.from_numpy(images))
    spread = float(x_0.std())
    rows = torch.randperm(len(x_0), generator=torch.Generator().manual_seed(0))[third::3]
    x_0, classes = x_0[rows] / spread, torch.from_numpy(labels).long()[rows]
    tokenizer = _tokenizer()
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        text_encoder = _text_encoder(tokenizer)
        torch.manual_seed(seed)
        width = text_encoder.config.hidden_size
        unet = _unet(x_0.shape[1], x_0.shape[2], width) if start is None else pipeline_in(start).unet.train()
        losses = _train(unet, scheduler, x_0, classes, _embedded(tokenizer, text_encoder, (*_PROMPTS, "")), steps)
    vae, _ = autoencoder_in(autoencoder)
    vae.register_to_config(scaling_factor=vae.config.scaling_factor / spread)
    made = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.save_pretrained(folder)
    return {"pipeline": str(folder), "loss": float(torch.stack(losses[-max(1, steps // 10) :]).mean())}


def _train(unet: Any, scheduler: Any, x_0: Tensor, classes: Tensor, embedded: Tensor, steps: int) -> list[Tensor]:
    """Trains a U-Net in its place; ``embedded`` holds the prompts' vectors, those of no prompt last."""
    optimizer = torch.optim.Adam(unet.parameters(), _LR)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    losses = []
    for _ in range(steps):
        batch = torch.randint(len(x_0), (_BATCH,))
        eps, t = torch.randn(_BATCH, *x_0.shape[1:]), torch.randint(1000, (_BATCH,))
        prompts = torch.where(torch.rand(_BATCH) < _UNPROMPTED, len(embedded) - 1, classes[batch])
        v = unet(scheduler.add_noise(x_0[batch], eps, t), t, embedded[prompts], return_dict=False)[0]
        loss = functional.mse_loss(v, scheduler.get_velocity(x_0[batch], eps, t))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    return losses


def _unet(channels: int, side: int, words: int) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=[32, 48],
        down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
        layers_per_block=1,
        cross_attention_dim=words,
        attention_head_dim=2,
        norm_num_groups=8,
    )


def _tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that knows the words of the prompts, each as one token, and letters."""
    from transformers import CLIPTokenizer

    words = sorted({word for prompt in _PROMPTS for word in prompt.split()})
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces, merges = [*letters, *(f"{letter}</w>" for letter in letters)], []
    for word in words:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append(f"{parts[0]} {parts[1]}")
            parts[:2] = ["".join(parts[:2])]
            pieces.append(parts[0])
    pieces = [*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, rules = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocabulary.write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}), encoding="utf-8")
        rules.write_text("\n".join(["#version: 0.2", *dict.fromkeys(merges), ""]), encoding="utf-8")
        return CLIPTokenizer(str(vocabulary), str(rules), model_max_length=_TOKENS)


def _text_encoder(tokenizer: Any) -> Any:
    """A small CLIP text encoder at random weights: its vectors tell the prompts apart, which is all that is needed."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=_TOKENS,
        initializer_range=0.5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config).eval().requires_grad_(False)


def _embedded(tokenizer: Any, text_encoder: Any, prompts: Sequence[str]) -> Tensor:
    """Vectors of prompts, as pipelines make them, (prompts, tokens, width)."""
    tokens = tokenizer([*prompts], padding="max_length", max_length=_TOKENS, truncation=True, return_tensors="pt")
    return text_encoder(tokens.input_ids)[0]
