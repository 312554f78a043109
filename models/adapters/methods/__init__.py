"""Methods of parameter-efficient fine-tuning and the plain baselines, which `..method` finds."""
