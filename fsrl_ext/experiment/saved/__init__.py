"""Uses saved policies: loading, evaluating, filming, adapting."""
