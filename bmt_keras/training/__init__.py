"""From images and captions to a trained captioner.

Nothing is imported here: the process that embeds images starts fast.
"""
