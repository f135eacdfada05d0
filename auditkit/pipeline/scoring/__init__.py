"""`auditkit sae score`: bench, groups of measures, card."""
