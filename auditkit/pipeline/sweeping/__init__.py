"""`auditkit sae sweep`: cells, what is measured of each, table and picture."""
