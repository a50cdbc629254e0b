"""The miniature: its world, its base model and its reward model, all made here and carried along."""
