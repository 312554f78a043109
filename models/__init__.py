"""Generators of FA and MD: networks, probability paths, samplers, adapters."""
