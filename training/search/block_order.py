"""The order in which a search takes the network's blocks."""

from __future__ import annotations

import torch

from models.adapters.targets import all_targets, blocks
from models.diffusion.denoiser import Denoiser
from models.diffusion.loss import TrainingLoss
from models.generator import Generator
from training.adapt_group import AdaptGroup
from training.batch import draw
from training.settings import LoopSettings

# Batches of one subject each.
_BATCHES = 32
_SEED = 2**30


def block_order(base: Generator, group: AdaptGroup, loop: LoopSettings) -> tuple[str, ...]:
    """Returns the network's blocks, first the one whose change gains most per parameter.

    That is the mean squared gradient of the loss on the group's training subjects over the tensors
    of the block: to first order, a step along the gradient of a block of n parameters lowers the
    loss by its squared norm, so this is the gain per parameter (the diagonal of the
    Fisher information, as in Sung et al. 2021, averaged over a block).

    Parameters
    ----------
    group : of the base; only its training subjects are used.
    loop : how batches are drawn.
    """
    config = base.config
    denoiser = Denoiser(
        base.dim, group.prior, config.network, config.diffusion.path, base.denoiser.null_token
    )
    denoiser.network.load_state_dict(base.denoiser.network.state_dict())
    loss, network = TrainingLoss(denoiser).eval(), denoiser.network
    targets = all_targets(network)
    for target in targets:
        target.of_base(network).requires_grad_(True)
    squares = dict.fromkeys(blocks(network), 0.0)
    counts = dict.fromkeys(squares, 0)
    for i in range(_BATCHES):
        network.zero_grad()
        chosen = torch.tensor([i % len(group.train)])
        seed = (_SEED, loop.seed, i)
        error, count = loss(*draw(group.train, chosen, denoiser, loop, seed, torch.device("cpu")))
        (error / count).backward()
        for target in targets:
            gradient = target.of_base(network).grad
            if gradient is not None:
                squares[target.block] += float(gradient.square().sum())
    for target in targets:
        counts[target.block] += target.of_base(network).numel()
    return tuple(sorted(squares, key=lambda block: -squares[block] / counts[block]))
