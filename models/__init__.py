"""Generators of diffusion tensor maps: a prior, a diffusion model on it, and adapters."""
