"""Attacks: pure functions of tensors with `eps`, `step_size` and `steps` as keyword-only arguments."""
