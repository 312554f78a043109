"""What runs beside the code: tracking, compute, storage."""
