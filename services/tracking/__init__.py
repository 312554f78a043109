"""MLflow: runs, their lineage, and saved views."""

from services.tracking.run import Run, resume_run, start_run

__all__ = ["Run", "resume_run", "start_run"]
