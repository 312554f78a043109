"""MLflow: runs, saved views, and the registry of generators."""

from services.tracking.run import Run, resume, start

__all__ = ["Run", "resume", "start"]
