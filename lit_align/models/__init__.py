"""Language models: loading, the roles on one base, sampling, and what fits in memory."""
