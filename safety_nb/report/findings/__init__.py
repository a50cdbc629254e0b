"""What the judgements of a run or a study say: rates, contrasts between N, costs, the verdict."""
