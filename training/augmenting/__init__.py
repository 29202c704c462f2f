"""Synthetic data augmentation: new prompts, answers to them, and which of them become pairs."""
