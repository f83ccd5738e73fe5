"""Similarities of descriptors, exact to the last bit that is compared.

The similarity of two vectors is ``M(x, y) = <x, y> / (|x| |y|)``, summed in float64, and 0 where a vector is zero.
Features in float32, float16 or bfloat16 are compared as float32: M is rounded to float32 once and the threshold too,
so that a pair built to lie on the threshold lies on it. Features in float64 are compared in float64.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from repro.devices import onto
from repro.errors import UserError

__all__ = [
    "as_features",
    "check_threshold",
    "compared_dtype",
    "cosine",
    "cosine_matrix",
    "divided",
    "exceeds",
    "nearest",
    "paired_cosine",
    "row_lengths",
    "same_shape",
    "two_features",
    "unit_rows",
]

ROWS_AT_ONCE = 8192
SAMPLES_AT_ONCE = 4096
TRAIN_AT_ONCE = 4096
BLOCK = 256
_LENGTHS_AT_ONCE = 512
_TIE = 1e-12
_PAIR_ELEMENTS = 1 << 22


def as_features(value: Any, name: str) -> Tensor:
    """Returns features as they are, or those of :class:`~repro.descriptors.pixels.Pixels` when uint8 images are given.

    Args:
        value: Floating (n, d) features, or uint8 (n, C, H, W) images; tensors or arrays.
        name: What they are called in messages.

    Raises:
        UserError: another dtype or shape, no row, or a value that is not finite.
    """
    with warnings.catch_warnings():  # a file that is mapped to be read only is never written here
        warnings.filterwarnings("ignore", message=".*not writable.*")
        tensor = torch.as_tensor(value).detach()
    if tensor.ndim == 4 and tensor.dtype == torch.uint8 and tensor.numel():
        from repro.descriptors.pixels import Pixels

        return Pixels().features(tensor)
    if tensor.ndim != 2 or not tensor.is_floating_point():
        raise UserError(
            f"{name} are {tensor.dtype} of shape {tuple(tensor.shape)}; give floating (n, d) features or uint8 "
            "(n, C, H, W) images"
        )
    if tensor.numel() == 0:
        raise UserError(f"{name} have shape {tuple(tensor.shape)}; a score needs at least one row")
    for start in range(0, len(tensor), ROWS_AT_ONCE):
        finite = tensor[start : start + ROWS_AT_ONCE].isfinite().all(1)
        if not bool(finite.all()):
            row = start + int((~finite).nonzero()[0])
            raise UserError(f"{name} hold a value that is not finite in row {row}; compute them again")
    return tensor


def two_features(features: Any, train_features: Any) -> tuple[Tensor, Tensor]:
    """Returns features of samples and of a training set; see :func:`as_features`.

    Raises:
        UserError: as :func:`as_features`, or vectors of different sizes.
    """
    features, train = as_features(features, "features"), as_features(train_features, "train_features")
    if features.shape[1] != train.shape[1]:
        raise UserError(
            f"features have size {features.shape[1]}, train_features {train.shape[1]}; use one descriptor for both"
        )
    return features, train


def same_shape(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Returns features of two models on the same noises; see :func:`as_features`.

    Raises:
        UserError: as :func:`as_features`, or different shapes.
    """
    a, b = as_features(a, "the first features"), as_features(b, "the second features")
    if a.shape != b.shape:
        raise UserError(
            f"the first features have shape {tuple(a.shape)}, the second {tuple(b.shape)}; "
            "compare the same noises under one descriptor"
        )
    return a, b


def check_threshold(threshold: float) -> float:
    """Checks the threshold of a similarity, and returns it as a float.

    Raises:
        UserError: outside [-1, 1].
    """
    if not -1 <= float(threshold) <= 1:
        raise UserError(f"threshold {threshold} is outside [-1, 1], where similarities lie; the paper takes 0.6")
    return float(threshold)


def exceeds(similarity: Tensor, threshold: float | Tensor) -> Tensor:
    """Says which similarities are strictly above a threshold or each of several, compared in their own dtype: bool."""
    limits = torch.as_tensor(threshold, dtype=similarity.dtype)
    return similarity > (onto(similarity.device, limits) if limits.ndim else limits)


def compared_dtype(*features: Tensor) -> torch.dtype:
    """Dtype in which similarities of these features are compared: float64 when one of them is, else float32."""
    return torch.float64 if any(item.dtype == torch.float64 for item in features) else torch.float32


def row_lengths(features: Tensor) -> Tensor:
    """Computes the Euclidean length of each row, float64 (n,), read a few hundred rows at a time."""
    # written into one tensor: small results between the large temporaries would keep these from being used again
    lengths = features.new_empty(len(features), dtype=torch.float64)
    for part, to in zip(features.split(_LENGTHS_AT_ONCE), lengths.split(_LENGTHS_AT_ONCE), strict=True):
        torch.linalg.vector_norm(part, dim=1, dtype=torch.float64, out=to)
    return lengths


def divided(products: Tensor, lengths: Tensor) -> Tensor:
    """Similarities from inner products and the products of lengths: 0 where a vector is zero, else in [-1, 1]."""
    return torch.where(lengths > 0, products / lengths, 0.0).clamp(-1, 1)


@torch.no_grad()
def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Computes the cosine of row i with row i, shape (n,).

    Args:
        a: Features, shape (n, d).
        b: Features, shape (n, d).

    Returns:
        Shape (n,), float64 when one of them is float64, else float32.
    """
    parts = []
    step = max(1, _PAIR_ELEMENTS // a.shape[1])
    for start in range(0, len(a), step):
        x, y = a[start : start + step].double(), b[start : start + step].to(a.device).double()
        parts.append(divided((x * y).sum(1), row_lengths(x) * row_lengths(y)))
    return torch.cat(parts).to(compared_dtype(a, b))


@torch.no_grad()
def cosine_matrix(features: Tensor, others: Tensor | None = None) -> Tensor:
    """Computes the similarity of every system with every system on each noise.

    Args:
        features: Of K systems on the same n noises, shape (n, K, d).
        others: What the second of each pair gave, in the same shape; the same features when left out.

    Returns:
        Shape (n, K, K), in the dtype of :func:`cosine`; entry (i, j, k) compares system j with system k.
    """
    others = features if others is None else others
    x, y = features.double(), others.double()
    lengths = x.norm(dim=2)[:, :, None] * y.norm(dim=2)[:, None, :]
    return divided(x @ y.transpose(1, 2), lengths).to(compared_dtype(features, others))


@torch.no_grad()
def paired_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Computes the similarity of row i with each of the k rows that belong to it.

    Args:
        a: Features, shape (n, d).
        b: Features, shape (n, k, d).

    Returns:
        Shape (n, k), in the dtype of :func:`cosine`.
    """
    flat = b.flatten(0, 1)
    parts = []
    each = b.shape[1]
    step = max(1, _PAIR_ELEMENTS // (a.shape[1] * each))
    for start in range(0, len(a), step):
        x = a[start : start + step].repeat_interleave(each, 0)
        parts.append(cosine(x, flat[start * each : start * each + len(x)]))
    return torch.cat(parts).view(len(a), each)


@torch.no_grad()
def nearest(features: Any, train_features: Any) -> tuple[Tensor, Tensor]:
    r"""For each sample the most similar training image: :math:`\max_y M(x, y)` and where it is.

    The product of samples and training set runs in float32, chunk by chunk; its rounding error is bounded, and every
    block of training images that could hold the maximum within that bound is computed again in float64. The result
    is that of a float64 loop over all pairs, however the samples are batched; among equally near training images
    (within 1e-12) the first is taken. The bound follows a lowered matrix precision (TF32), so that is safe to use.

    Memory above the inputs is below 300 MB at 512 features, whatever the number of samples and training images.

    Args:
        features: Floating (n, d) features or uint8 (n, C, H, W) images.
        train_features: The training set's, likewise, at least one row; moved in chunks to the samples' device.

    Returns:
        Similarity, shape (n,), float64 when one of them is float64, else float32; and index, int64, shape (n,).

    Raises:
        UserError: different feature sizes, or what :func:`as_features` refuses.

    Example:
        >>> train = torch.eye(3)
        >>> similarity, index = nearest(torch.tensor([[3.0, 0.0, 4.0]]), train)
        >>> similarity.tolist(), index.tolist()
        ([0.800000011920929], [2])
    """
    features, train = two_features(features, train_features)
    lengths, train_lengths = row_lengths(features), row_lengths(train).to(features.device)
    similarity = features.new_empty(len(features), dtype=torch.float64)
    index = features.new_empty(len(features), dtype=torch.int64)
    band = 2 * _product_error(features)
    columns = min(TRAIN_AT_ONCE, len(train))
    scratch = features.new_empty(min(SAMPLES_AT_ONCE, len(features)) * columns, dtype=torch.float32)
    for start in range(0, len(features), SAMPLES_AT_ONCE):
        rows = slice(start, start + SAMPLES_AT_ONCE)
        peaks = _block_peaks(features[rows], lengths[rows], train, train_lengths, scratch)
        candidates = peaks >= peaks.amax(1, keepdim=True) - band
        similarity[rows], index[rows] = _refine(features[rows], lengths[rows], train, train_lengths, candidates)
    return similarity.to(compared_dtype(features, train)), index


def _product_error(features: Tensor) -> float:
    """Bound of the error of the float32 inner product of two normalised rows."""
    try:
        plain = torch.get_float32_matmul_precision() == "highest"
        plain = plain and not (features.is_cuda and torch.backends.cuda.matmul.allow_tf32)
    except RuntimeError:
        plain = False
    return (features.shape[1] + 16) * 2.0**-24 + (0.0 if plain else 2.0**-7)


def unit_rows(features: Tensor, lengths: Tensor) -> Tensor:
    """Returns rows at unit length in float32; zero rows stay zero."""
    scale = torch.where(lengths > 0, 1 / lengths, 0.0)[:, None]
    if features.dtype == torch.float64 or float(scale.max()) > 1e30 or float(lengths.max()) > 1e30:
        return (features.double() * scale).float()
    return features.float() * scale.float()


def _block_peaks(x: Tensor, x_lengths: Tensor, train: Tensor, train_lengths: Tensor, scratch: Tensor) -> Tensor:
    """Largest similarity of each sample in each block of training images, in float32: shape (n, blocks)."""
    x = unit_rows(x, x_lengths)
    peaks = x.new_full((len(x), -(-len(train) // BLOCK)), -2.0)
    for start in range(0, len(train), TRAIN_AT_ONCE):
        part = train[start : start + TRAIN_AT_ONCE].to(x.device)
        part = unit_rows(part, train_lengths[start : start + TRAIN_AT_ONCE])
        product = scratch[: len(x) * len(part)].view(len(x), len(part))
        with torch.autocast(x.device.type, enabled=False):
            torch.mm(x, part.T, out=product)
        whole = len(part) // BLOCK
        first = start // BLOCK
        if whole:
            blocks = product[:, : whole * BLOCK].unflatten(1, (whole, BLOCK))
            torch.amax(blocks, dim=2, out=peaks[:, first : first + whole])
        if whole * BLOCK < len(part):
            peaks[:, first + whole] = product[:, whole * BLOCK :].amax(1)
    return peaks


def _refine(
    x: Tensor, x_lengths: Tensor, train: Tensor, train_lengths: Tensor, candidates: Tensor
) -> tuple[Tensor, Tensor]:
    """Exact maximum and its first place over the blocks that may hold it, in float64."""
    best = x.new_full((len(x),), -2.0, dtype=torch.float64)
    index = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    block_of, row_of = candidates.T.nonzero(as_tuple=True)
    counts = torch.bincount(block_of, minlength=candidates.shape[1]).tolist()
    start = 0
    for block, count in enumerate(counts):
        if count == 0:
            continue
        rows = row_of[start : start + count]
        start += count
        part = slice(block * BLOCK, (block + 1) * BLOCK)
        products = x[rows].double() @ train[part].to(x.device).double().T
        exact = divided(products, x_lengths[rows, None] * train_lengths[None, part])
        top = exact.amax(1)
        ordinal = torch.arange(exact.shape[1], device=x.device)
        first = torch.where(exact >= top[:, None] - _TIE, ordinal, BLOCK).amin(1)
        better = top > best[rows] + _TIE
        best[rows] = torch.where(better, top, best[rows])
        index[rows] = torch.where(better, first + block * BLOCK, index[rows])
    return best, index
