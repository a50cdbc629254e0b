"""Tidy tables to matplotlib Axes: one function a figure, and one that puts the same figure into words.

Shares are given as 0 to 1 and drawn as per cent. Every point carries its 95 % interval and every figure says its n.
Writes no files and knows no models. matplotlib and seaborn are imported when a figure is drawn, not before.
"""

from safety_nb.report.plots.reward import calibration, calibration_alt
from safety_nb.report.plots.run import (
    label_shares,
    label_shares_alt,
    length_histogram,
    length_histogram_alt,
    loss_by_source,
    loss_curve,
    loss_curve_alt,
)
from safety_nb.report.plots.study import (
    agreement,
    agreement_alt,
    by_setting,
    by_setting_alt,
    by_type,
    by_type_alt,
    differences,
    differences_alt,
    dose_response,
    dose_response_alt,
    safety_against_loss,
    safety_against_loss_alt,
    trade_off,
    trade_off_alt,
)

__all__ = [
    "agreement",
    "agreement_alt",
    "by_setting",
    "by_setting_alt",
    "by_type",
    "by_type_alt",
    "calibration",
    "calibration_alt",
    "differences",
    "differences_alt",
    "dose_response",
    "dose_response_alt",
    "label_shares",
    "label_shares_alt",
    "length_histogram",
    "length_histogram_alt",
    "loss_by_source",
    "loss_curve",
    "loss_curve_alt",
    "safety_against_loss",
    "safety_against_loss_alt",
    "trade_off",
    "trade_off_alt",
]
