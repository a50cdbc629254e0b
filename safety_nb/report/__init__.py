"""From judgements to findings, figures and pages: of a run, of a study, and of judges beside people."""
