"""Names that the exported model, its servers and its clients agree on.

Clients in other languages use the same strings.
"""

# === Signatures ===
SERVING_DEFAULT = "serving_default"
EMBED_IMAGE = "embed_image"
CAPTION_EMBEDDING = "caption_embedding"
MASKED_LM = "masked_lm"
CAPTION_WITH_LENGTH = "caption_with_length"
FILL_MASK = "fill_mask"
SCORE_CAPTION = "score_caption"

# === Inputs ===
IMAGE_BYTES = "image_bytes"  # (batch,) string: an encoded image
IMAGE_EMBEDDING = "image_embedding"  # (batch, ...) float32
TOKEN_IDS = "token_ids"  # (batch, sequence_length) int32, also an output
PADDING_MASK = "padding_mask"  # as token_ids: 1 token, 0 padding
LENGTH = "length"  # (batch,) int32: tokens of the caption, 0 leaves it free
TEXT = "text"  # (batch,) string, also an output

# === Outputs ===
CAPTION = "caption"  # (batch,) string
SCORE = "score"  # (batch,) float32: mean log-probability per token, in nats
TOKEN_SCORES = "token_scores"  # (batch, sequence_length) float32, 0 at padding
ERROR = "error"  # (batch,) string, empty where the example is good
LOGITS = "logits"  # (batch, sequence_length, vocabulary_size) float32
CANDIDATES = "candidates"  # (batch, masks, k) string, the likeliest first
CANDIDATE_PROBABILITIES = "candidate_probabilities"  # as candidates, float32
TOTAL_SCORE = "total_score"  # (batch,) float32: log-likelihood, in nats

# === Defaults ===
MODEL_NAME = "bmt"
GRPC_PORT = 8500
