"""Executes notebooks: runs, studies, and what is known of them before, during and after."""

from safety_nb import _lazy

__getattr__, __dir__, __all__ = _lazy.public(
    __name__,
    {
        "runner": ["NotebookFailed", "StageFailed", "execute_run"],
        "study": ["execute_runs", "open_study"],
        "stages": ["STAGES", "Stage", "make_missing", "notebook_path"],
        "checks": ["check_run"],
        "doctor": ["examine"],
    },
)
