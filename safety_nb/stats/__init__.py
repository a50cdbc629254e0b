"""Arrays to estimates: rates, differences, doses, agreement, corrections, each with its interval. Knows no files."""

from safety_nb import _lazy

__getattr__, __dir__, __all__ = _lazy.public(
    __name__,
    {
        "estimates": ["Estimate", "mean_over_seeds", "rate", "win_rate"],
        "dose": ["Curve", "largest_n", "smallest_n"],
        "agreement": ["agreements", "auc", "cohens_kappa", "krippendorffs_alpha", "score_agreements"],
        "prediction_powered": ["corrected_mean"],
        "paired": ["difference", "equivalence", "holm", "paired_test"],
    },
)
