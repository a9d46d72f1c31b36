"""The time of a step or an iteration, predicted from its parts, which are measured on a model of few layers."""
