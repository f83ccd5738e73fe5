"""Closed-form denoisers against slow and independent computations."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from repro import records, registry
from repro.data.digits import Digits
from repro.data.mixture import LowRankMixture
from repro.denoisers import EmpiricalDenoiser, FittedGaussianDenoiser, GaussianDenoiser, LowRankMixtureDenoiser
from repro.errors import UserError
from repro.images import to_uint8
from repro.kernels import EDM, VP, Flow
from repro.metrics.functional import generalization_score
from repro.noise import NoiseStream, mixture_bases

ORACLES = Path(__file__).parents[1] / "oracles"
KERNELS = registry.names("kernels")


def pictures(count, shape=(3, 4, 4), seed=0):
    return torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def naive(x_t, images, alpha, sigma):
    """Image by image, term by term, with the largest exponent taken out."""
    images = [image / 127.5 - 1 for image in images.float()]
    answers = []
    for x in x_t:
        exponents = [-float(((x / alpha - y.double()) ** 2).sum()) / (2 * (sigma / alpha) ** 2) for y in images]
        weights = [math.exp(exponent - max(exponents)) for exponent in exponents]
        answers.append(sum(w * y.double() for w, y in zip(weights, images, strict=True)) / math.fsum(weights))
    return torch.stack(answers)


def relative(ours, right):
    return ((ours - right).flatten(1).norm(dim=1) / right.flatten(1).norm(dim=1)).max().item()


@pytest.mark.parametrize("ratio", [0.002, 0.02, 0.2, 1.0, 5.0, 80.0])
@pytest.mark.parametrize("kernel", [EDM(), VP(t_min=1e-5), Flow(t_min=1e-4)], ids=lambda kernel: type(kernel).__name__)
def test_empirical_equals_the_naive_sum(kernel, ratio):
    images = pictures(40)
    t = kernel.time_of_ratio(torch.tensor(ratio, dtype=torch.float64))
    alpha, sigma = kernel.alpha(t).item(), kernel.sigma(t).item()
    noise = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x_t = alpha * (images[:5] / 127.5 - 1).double() + sigma * noise
    assert relative(EmpiricalDenoiser(images, kernel).denoise(x_t, t), naive(x_t, images, alpha, sigma)) < 1e-9


@pytest.mark.parametrize("chunk", [1, 3, 64, 1000])
def test_chunks_do_not_matter(chunk):
    images = pictures(64)
    x_t = torch.randn(7, 3, 4, 4, dtype=torch.float64) * 2
    for sigma in (0.002, 1.0, 80.0):
        t = torch.tensor(sigma, dtype=torch.float64)
        whole, part = (EmpiricalDenoiser(images, EDM(), chunk=size).posterior(x_t, t) for size in (64, chunk))
        torch.testing.assert_close(part[0], whole[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(part[1], whole[1], rtol=1e-9, atol=1e-6)


def test_recorded_runs_of_the_companion_code():
    io = load_file(ORACLES / "samplers" / "optimal_denoiser" / "io.safetensors")
    x, sigma = io["x"].double(), io["sigma"].double()
    for chunk in (5, 64):
        denoiser = EmpiricalDenoiser(io["dataset"], EDM(), chunk=chunk)
        assert relative(denoiser.denoise(x, sigma), io["D"].double()) < 1e-9
        one_by_one = torch.cat([denoiser.denoise(row[None], level) for row, level in zip(x, sigma, strict=True)])
        assert relative(one_by_one, io["D"].double()) < 1e-9


def test_far_from_every_image_at_the_smallest_level():
    """All exponents underflow unless the largest is taken out; ties share."""
    images = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    images[1] = 255
    x_t = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    t = torch.tensor(0.002, dtype=torch.float64)
    denoiser = EmpiricalDenoiser(images, EDM(), chunk=1)
    torch.testing.assert_close(denoiser.denoise(x_t, t), torch.full_like(x_t, -1 / 3))
    nearer = denoiser.denoise(x_t + 1e-4, t)
    torch.testing.assert_close(nearer, torch.full_like(x_t, 1.0))


def test_near_ties_in_many_dimensions():
    """3,072 pixels, two images one grey level apart in one pixel, ratio 0.002: weights need every digit."""
    images = pictures(50, (3, 32, 32))
    images[1] = images[0]
    images[1, 0, 0, 0] ^= 1
    points = (images / 127.5 - 1).double()
    noise = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    x_t = points[0] + 0.05 * noise
    t = torch.tensor(0.05, dtype=torch.float64)
    denoiser = EmpiricalDenoiser(points, EDM(), chunk=16)
    squares = torch.stack([(x_t - y).flatten(1).square().sum(1) for y in points], 1)
    weights = torch.softmax(-squares / (2 * 0.05**2), 1)
    assert (weights[:, :2] > 0.2).all()
    right = torch.einsum("bn,nchw->bchw", weights, points)
    assert (denoiser.denoise(x_t, t) - right).abs().max() < 1e-9


def test_evidence_is_the_log_density():
    images = pictures(30)
    denoiser, kernel = EmpiricalDenoiser(images, VP(), chunk=7), VP()
    x_t, t = torch.randn(6, 3, 4, 4, dtype=torch.float64), torch.rand(6, dtype=torch.float64) * 0.8 + 0.1
    alpha, sigma = kernel.alpha(t), kernel.sigma(t)
    distance = torch.cdist(x_t.flatten(1) / alpha[:, None], denoiser.points).square()
    right = torch.logsumexp(-distance / (2 * (sigma / alpha) ** 2)[:, None], 1)
    torch.testing.assert_close(denoiser.posterior(x_t, t)[1], right, rtol=1e-9, atol=1e-9)
    x_t.requires_grad_()
    (gradient,) = torch.autograd.grad(denoiser.posterior(x_t, t)[1].sum(), x_t)
    torch.testing.assert_close(gradient, denoiser.score(x_t.detach(), t), rtol=1e-8, atol=1e-8)


def test_gradients():
    images, labels = pictures(20, (1, 2, 2)), torch.arange(20) % 3
    denoiser = EmpiricalDenoiser(images, VP(), labels=labels, chunk=7)
    x_t = torch.randn(2, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    t = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    for given in (None, torch.tensor([0, 2])):
        assert torch.autograd.gradcheck(lambda x, t, given=given: denoiser.denoise(x, t, given), (x_t, t))
        assert torch.autograd.gradcheck(lambda x, t, given=given: denoiser.posterior(x, t, given)[1], (x_t, t))
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        torch.autograd.grad(denoiser.denoise(x_t, t).sum(), x_t, create_graph=True)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("ratio", [0.002, 0.05, 1.0, 80.0])
def test_vector_jacobian_products_equal_those_of_a_plain_softmax(ratio, conditional):
    """Half way between two images a grey level apart in one pixel, the covariance counts at the smallest level too."""
    images, labels = pictures(30), torch.arange(30) % 3
    images[3:6] = images[:3]
    images[3:6, 0, 0, 0] ^= 1
    given = labels[:6] if conditional else None
    points, kernel = (images / 127.5 - 1).double(), VP(t_min=1e-6)
    denoiser = EmpiricalDenoiser(points, kernel, labels=labels if conditional else None, chunk=7)
    t = kernel.time_of_ratio(torch.tensor(ratio, dtype=torch.float64))
    alpha, sigma = kernel.alpha(t), kernel.sigma(t)
    noise = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    noise[:, 0, 0, 0] = 0
    halfway = (points[:6] + points[:6].roll(3, 0)) / 2
    x_t = (alpha * halfway + sigma * noise).requires_grad_()
    squares = (x_t[:, None] / alpha - points).flatten(2).square().sum(2)
    if conditional:
        squares = squares.masked_fill(given[:, None] != labels, torch.inf)
    weights = torch.softmax(-squares / (2 * ratio**2), 1)
    assert weights.amax() < 0.51
    vector = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    right = torch.autograd.grad(torch.einsum("bn,nchw->bchw", weights, points), x_t, vector)[0]
    (ours,) = torch.autograd.grad(denoiser.denoise(x_t, t, given), x_t, vector)
    assert relative(ours, right) < 1e-9


@pytest.mark.parametrize("chunk", [2, 5, 64])
def test_each_class_is_an_empirical_optimum_of_its_own(chunk):
    images, labels = pictures(30), torch.arange(30) // 10
    conditional = EmpiricalDenoiser(images, VP(), labels=labels, chunk=chunk)
    assert conditional.num_classes == 3
    x_t, t = torch.randn(6, 3, 4, 4, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    given = torch.tensor([0, 1, 2, 2, 1, 0])
    ours = conditional.denoise(x_t, t, given)
    for c in range(3):
        alone = EmpiricalDenoiser(images[labels == c], VP())
        torch.testing.assert_close(ours[given == c], alone.denoise(x_t[given == c], t), rtol=1e-9, atol=1e-9)
    free = EmpiricalDenoiser(images, VP())
    torch.testing.assert_close(conditional.denoise(x_t, t), free.denoise(x_t, t), rtol=1e-9, atol=1e-9)


def test_memory_is_bounded_by_the_chunk():
    """The largest tensor made on the way, there and back, holds a chunk of images or of weights, not all of them."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        bytes = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made.untyped_storage().nbytes() != 1000 * 192:
                self.bytes = max(self.bytes, made.untyped_storage().nbytes())
            return made

    denoiser = EmpiricalDenoiser(pictures(1000, (3, 8, 8)), EDM(), chunk=50)
    x_t, t = torch.randn(20, 3, 8, 8, dtype=torch.float64, requires_grad=True), torch.tensor(1.0)
    with Largest() as there:
        mean = denoiser.denoise(x_t, t)
    with Largest() as back:
        mean.sum().backward()
    assert there.bytes == back.bytes == 50 * 192 * 8


def test_what_is_kept_for_gradients_does_not_grow_with_the_images():
    x_t, kept = torch.randn(5, 3, 4, 4, dtype=torch.float64, requires_grad=True), []
    for count in (20, 500):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, to=sizes: (to.append(x.numel()), x)[1], lambda x: x):
            EmpiricalDenoiser(pictures(count), EDM(), chunk=10).denoise(x_t, torch.tensor(1.0))
        kept.append(sum(sizes))
    assert kept[0] == kept[1] > 0


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_images_that_are_left_out_do_not_move_the_sum(precision, labelled):
    """At low noise most images are left out, near ties are not, and the answer is that of all images."""
    images = pictures(600, (3, 8, 8))
    images[300:330] = images[0] ^ (torch.rand(30, 3, 8, 8, generator=torch.Generator().manual_seed(2)) < 0.02)
    labels = torch.arange(600) % 2 if labelled else None
    denoiser = EmpiricalDenoiser(images, EDM(), labels=labels, chunk=50, precision=precision)
    asked = None if labels is None else labels[:20]
    noise = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    points, seen = (images.float() / 127.5 - 1).double().flatten(1), {}
    for ratio in (0.1, 1.0, 30.0):
        x_t = points[:20].view_as(noise) + ratio * noise
        logits = -(x_t.flatten(1)[:, None] - points).square().sum(2) / (2 * ratio**2)
        if labels is not None:
            logits.masked_fill_(labels[:20, None] != labels, -torch.inf)
        right = (torch.softmax(logits, 1) @ points).view_as(noise)
        tolerance = 1e-10 if precision == "float64" else 1e-4
        answer = denoiser.denoise(x_t, torch.tensor(ratio, dtype=torch.float64), asked)
        torch.testing.assert_close(answer, right, rtol=0, atol=tolerance)
        x = x_t.flatten(1).to(denoiser.dtype)
        chunks = denoiser.significant_chunks(x, torch.full((20, 1), ratio**-2, dtype=x.dtype), asked)
        seen[ratio] = sum(len(part) for part, _, _ in chunks)
    assert seen[0.1] < 150
    assert seen[30.0] == 600


@pytest.mark.parametrize("sampler", ["Euler", "Heun", "DPMSolver"])
def test_its_samples_are_training_images(sampler):
    """GL is 0, and every pixel is that of the nearest training image."""
    images = pictures(200, (3, 8, 8), seed=3)
    built = registry.build("samplers", sampler, steps=30, final_denoise=True)
    drawn = to_uint8(built.sample(EmpiricalDenoiser(images, EDM()), NoiseStream(range(40))))
    assert generalization_score(drawn.flatten(1).float(), images.flatten(1).float(), 0.99) == 0
    nearest = (drawn.flatten(1).double()[:, None] - images.flatten(1)).abs().amax(2).amin(1)
    assert (nearest == 0).all()


def test_float_images_and_float32_arithmetic():
    images = pictures(50)
    points = images.float() / 127.5 - 1
    x_t, t = torch.randn(6, 3, 4, 4), torch.tensor(1.0)
    from_bytes = EmpiricalDenoiser(images, EDM()).denoise(x_t, t)
    assert from_bytes.dtype == torch.float32
    torch.testing.assert_close(EmpiricalDenoiser(points, EDM()).denoise(x_t, t), from_bytes)
    single = EmpiricalDenoiser(images, EDM(), precision="float32")
    for ratio in (0.2, 1.0, 80.0):
        t = torch.tensor(ratio)
        assert (single.denoise(x_t, t) - EmpiricalDenoiser(images, EDM()).denoise(x_t, t)).abs().max() < 2e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": torch.zeros(0, 1, 2, 2)}, "at least one; got"),
        ({"images": torch.zeros(4, 2, 2)}, r"needs images \(N, C, H, W\)"),
        ({"images": torch.zeros(4, 1, 2, 2), "labels": torch.zeros(3, dtype=torch.int64)}, "3 labels for 4 images"),
        ({"images": torch.zeros(4, 1, 2, 2), "precision": "float"}, "unknown precision 'float'"),
        ({"images": torch.zeros(4, 1, 2, 2), "chunk": 0}, "chunk is 0"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(UserError, match=message):
        EmpiricalDenoiser(kernel=VP(), **arguments)


def test_label_mistakes():
    images, x_t, t = pictures(6, (1, 2, 2)), torch.zeros(2, 1, 2, 2), torch.tensor(0.5)
    with pytest.raises(UserError, match="built without the labels of its images"):
        EmpiricalDenoiser(images, VP()).denoise(x_t, t, torch.tensor([0, 1]))
    conditional = EmpiricalDenoiser(images, VP(), labels=torch.tensor([0, 0, 2, 2, 3, 3]))
    for strange in (1, 4, -1):
        with pytest.raises(UserError, match=f"no training image has label {strange}"):
            conditional.denoise(x_t, t, torch.tensor([0, strange]))


@pytest.mark.parametrize("kernel", KERNELS)
def test_gaussian_posterior_by_quadrature(kernel):
    """E[x_0 | x_t] as a ratio of two integrals over x_0."""
    kernel, mean, std = registry.build("kernels", kernel), 0.3, 0.5
    x_0 = torch.linspace(mean - 12 * std, mean + 12 * std, 20001, dtype=torch.float64)
    denoiser = GaussianDenoiser(kernel, (1, 1, 1), mean, std)
    for ratio in (0.05, 0.7, 9.0):
        t = kernel.time_of_ratio(torch.tensor(ratio, dtype=torch.float64))
        alpha, sigma = kernel.alpha(t), kernel.sigma(t)
        x_t = torch.tensor([-0.8, 0.1, 1.1], dtype=torch.float64)[:, None] * (alpha + sigma)
        exponent = -(((x_0 - mean) / std) ** 2 + ((x_t - alpha * x_0) / sigma) ** 2) / 2
        density = (exponent - exponent.amax(1, keepdim=True)).exp()
        right = (density * x_0).sum(1) / density.sum(1)
        torch.testing.assert_close(denoiser.denoise(x_t[:, :, None, None], t).flatten(), right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
def test_gaussian_transport_solves_the_probability_flow(kernel):
    """Its time derivative is the drift f x - g^2 score / 2, and it ends where it should."""
    kernel = registry.build("kernels", kernel)
    denoiser = GaussianDenoiser(kernel, (1, 2, 2), 0.3, 0.5)
    start, t = torch.randn(3, 1, 2, 2, dtype=torch.float64), torch.tensor(kernel.t_max, dtype=torch.float64)
    for part in (0.1317, 0.5171, 0.9173):
        s = kernel.t_min + part * (t - kernel.t_min)
        h = 1e-6 * s
        x_s = denoiser.transport(start, t, s)
        slope = (denoiser.transport(start, t, s + h) - denoiser.transport(start, t, s - h)) / (2 * h)
        drift, sigma = kernel.log_alpha_dot(s), kernel.sigma(s)
        diffusion = 2 * sigma * (kernel.sigma_dot(s) - drift * sigma)
        right = drift * x_s - diffusion / 2 * denoiser.score(x_s, s)
        torch.testing.assert_close(slope, right, rtol=1e-5, atol=1e-6 * right.abs().max().item())
    torch.testing.assert_close(denoiser.transport(start, t, t), start)
    back = denoiser.transport(denoiser.transport(start, t, t / 3), t / 3, t)
    torch.testing.assert_close(back, start)


def test_gaussian_mistake():
    with pytest.raises(UserError, match="std is 0"):
        GaussianDenoiser(VP(), std=0.0)


def dense_mixture(denoiser, x_t, alpha, sigma):
    """Posterior mean and log density by dense covariances, one component at a time."""
    x, means, densities = x_t.flatten(1), [], []
    for basis in denoiser.bases:
        prior = basis @ basis.T
        covariance = alpha**2 * prior + sigma**2 * torch.eye(len(prior), dtype=x.dtype)
        means.append(alpha * x @ torch.linalg.solve(covariance, prior))
        densities.append(torch.distributions.MultivariateNormal(x.new_zeros(len(prior)), covariance).log_prob(x))
    densities = torch.stack(densities, 1)
    mean = (densities.softmax(1)[:, :, None] * torch.stack(means, 1)).sum(1)
    return mean.view(x_t.shape), densities.logsumexp(1) - math.log(len(denoiser.bases)), torch.stack(means, 1)


@pytest.mark.parametrize("ratio", [0.05, 0.7, 9.0])
@pytest.mark.parametrize("kernel", KERNELS)
def test_mixture_equals_dense_gaussians(kernel, ratio):
    kernel = registry.build("kernels", kernel)
    denoiser = LowRankMixtureDenoiser(kernel, (3, 4, 4), components=3, rank=5, bases_seed=2)
    t = kernel.time_of_ratio(torch.tensor(ratio, dtype=torch.float64))
    alpha, sigma = kernel.alpha(t), kernel.sigma(t)
    x_0 = LowRankMixture(components=3, rank=5, bases_seed=2, samples=6).images().double()
    x_t = (alpha * x_0 + sigma * torch.randn(x_0.shape, dtype=torch.float64)).requires_grad_()
    mean, density, means = dense_mixture(denoiser, x_t, alpha, sigma)
    torch.testing.assert_close(denoiser.denoise(x_t, t), mean, rtol=1e-8, atol=1e-8)
    (gradient,) = torch.autograd.grad(density.sum(), x_t)
    torch.testing.assert_close(denoiser.score(x_t, t), gradient, rtol=1e-7, atol=1e-8 * gradient.abs().max().item())
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    right = means[torch.arange(6), labels].view(x_t.shape)
    torch.testing.assert_close(denoiser.denoise(x_t, t, labels), right, rtol=1e-8, atol=1e-8)


def test_mixture_is_the_limit_of_empirical_optima():
    """Nothing denoises the data plug-in's samples better, and the optimum of many of them comes close."""
    data, t = LowRankMixture(rank=2, image_shape=(1, 2, 3), samples=40_000, holdout=2000), torch.tensor(0.5)
    exact = LowRankMixtureDenoiser(EDM(), (1, 2, 3), rank=2)
    x_0 = data.held_out()[0].double()
    x_t = x_0 + 0.5 * torch.randn(x_0.shape, dtype=torch.float64)
    best = exact.denoise(x_t, t)
    errors = [
        (EmpiricalDenoiser(data.images()[:count], EDM()).denoise(x_t, t) - best).square().flatten(1).sum(1).mean()
        for count in (100, 2000, 38_000)
    ]
    assert errors[2] < errors[1] / 5 < errors[0] / 25
    assert errors[2] < 5e-4
    loss = (best - x_0).square().mean()
    for worse in (0.97 * best, 1.03 * best, best + 0.02):
        assert (worse - x_0).square().mean() > loss


def test_mixture_runs_under_every_sampler():
    denoiser = LowRankMixtureDenoiser(EDM())
    bases = mixture_bases((3, 4, 4), 2, 7, 0)
    for name in registry.names("samplers"):
        if name in ("PosteriorSampler", "Consistency"):  # they draw from another distribution
            continue
        drawn = registry.build("samplers", name).sample(denoiser, NoiseStream(range(3))).flatten(1)
        distance = torch.stack([(drawn - drawn @ basis @ basis.T).norm(dim=1) for basis in bases]).amin(0)
        assert (distance < 0.1 * drawn.norm(dim=1)).all(), name


def test_mixture_is_rebuilt_from_plain_data():
    denoiser = LowRankMixtureDenoiser(VP(), (1, 3, 3), components=4, rank=2, bases_seed=9)
    again = records.rebuild(records.record_of(denoiser))
    assert torch.equal(again.bases, denoiser.bases)
    assert torch.equal(again.bases, LowRankMixture((1, 3, 3), 4, 2, 9).bases)
    with pytest.raises(UserError, match="outside the 4 components 0 to 3"):
        again.denoise(torch.zeros(1, 1, 3, 3), torch.tensor(0.5), torch.tensor([4]))


@pytest.mark.parametrize("kind", [EmpiricalDenoiser, FittedGaussianDenoiser])
def test_closed_forms_are_made_of_what_a_training_is_shown(kind):
    """With flips the mirrored copies too: the answer to a mirrored image is the mirrored answer."""
    denoiser = kind(Digits(subset=30, horizontal_flip=True), EDM())
    x_t, t = torch.randn(4, 1, 8, 8, dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64)
    mirrored = denoiser.denoise(x_t.flip(-1), t).flip(-1)
    torch.testing.assert_close(mirrored, denoiser.denoise(x_t, t), rtol=1e-9, atol=1e-9)
    plain = kind(Digits(subset=30), EDM())
    assert (plain.denoise(x_t.flip(-1), t).flip(-1) - plain.denoise(x_t, t)).abs().max() > 0.01
