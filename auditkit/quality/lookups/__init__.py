"""Latents and other directions, scored by token lookups without a judge."""
