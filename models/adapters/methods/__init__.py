"""Methods of parameter-efficient fine-tuning, one file each, which `..method` finds."""
