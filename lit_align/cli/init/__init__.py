"""``lit-align init``: write a YAML for a task, with settings that fit the model, the data and the GPU."""
