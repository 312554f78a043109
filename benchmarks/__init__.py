"""Speed and quality, as ratios against named baselines: `make bench`."""
