"""Language models: loading, the adapters on one base, sampling, and what fits in memory."""
