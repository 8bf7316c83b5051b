"""From images and captions on disk to batches."""
