"""Using a saved policy: loading, evaluating, filming, adapting it."""
