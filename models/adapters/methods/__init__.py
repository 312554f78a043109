"""Methods of parameter-efficient fine-tuning, one file each; `models.adapters.method` finds them."""
