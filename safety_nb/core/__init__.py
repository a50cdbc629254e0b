"""What every room uses: parameters, the run folder, files, endpoints, errors. Knows nothing of models or pages."""

from safety_nb import _lazy

__getattr__, __dir__, __all__ = _lazy.public(
    __name__,
    {
        "errors": ["InputError"],
        "params": [
            "MixParams",
            "TrainParams",
            "GenerateParams",
            "JudgeParams",
            "ReportParams",
            "RunParams",
            "StudyParams",
            "StudySettings",
            "MakeSafetyDataParams",
            "AnnotateParams",
            "TrainRewardParams",
            "CapabilityParams",
            "validate",
        ],
        "recipes": ["RECIPES"],
        "grid": ["PlannedRun", "expand", "plan", "run_name", "swept_names"],
        "run_folder": ["RunFolder", "open_run", "outputs_root"],
        "labels": ["FULL_COMPLIANCE", "FULL_REFUSAL", "GARBLED", "PARTIAL_REFUSAL"],
    },
)
