"""From images and captions to a trained captioner.

`bmt_keras.train` does all of it; `bmt_keras.training.run.Run` trains on data
that is in memory. Nothing is imported here, so that the process that embeds
images starts fast.
"""
