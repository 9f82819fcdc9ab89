"""Running an experiment: building it, training, saving, resuming."""
