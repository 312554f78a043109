"""Parameter-efficient fine-tuning: small files that turn a base generator into another."""
