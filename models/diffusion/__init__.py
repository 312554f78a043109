"""The diffusion model: network, denoiser, probability path, loss and sampler."""
