"""Launch scripts and Hydra configuration: one YAML per tenant and algorithm."""
