"""Activations: harvested, stored, shuffled into batches."""
