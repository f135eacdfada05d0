"""Training and judging in planted worlds."""
