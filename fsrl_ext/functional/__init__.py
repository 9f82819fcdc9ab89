"""Pure maths on tensors: no modules, no optimisers, no Batch, no hidden randomness."""
