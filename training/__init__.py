"""Fitting a base generator, adapting it, and searching how to adapt it."""
