"""On-line training: rounds of sampling, labelling and training."""
