"""What is trained on and asked: data sets, mixtures, decontamination, templates, demonstrations of one's own."""
