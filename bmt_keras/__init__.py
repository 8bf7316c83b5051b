"""bmt_keras: image captioning with masked language models in Keras.

Nothing is imported here, so that the serving client costs no Keras.
Import from where things live: `bmt_keras.layers`, `bmt_keras.models`,
`bmt_keras.captioner`.
"""

__version__ = "0.1.0"
