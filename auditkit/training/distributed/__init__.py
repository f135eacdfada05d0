"""Training on several processes: data parallel, latents sharded."""
