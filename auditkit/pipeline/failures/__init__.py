"""How an SAE's latents fail, on a real model: lookups, absorption, splitting."""
