"""Uses saved policies: loading, evaluating, diagnosing, filming, adapting."""
