"""From photos and captions on disk to batches."""
