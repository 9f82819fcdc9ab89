"""Files of tensors, numbers and text: how they are written, and what is checked before anything is used."""
