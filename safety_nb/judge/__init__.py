"""From responses to judgements: judges, one module a kind, what they said kept; people's labels; a reward model."""
