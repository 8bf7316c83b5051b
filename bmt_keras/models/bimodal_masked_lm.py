"""The masked language model that sees a photo."""

from functools import partial
from typing import Any

import keras
from keras import ops

from bmt_keras.layers import (
    BimodalFusion,
    ConceptHead,
    CrossAttentionFusion,
    LengthHead,
    MaskedTokenHead,
    MaskedTokenLoss,
    TokenMasking,
)
from bmt_keras.models.blank_rows import compute_blank_once
from bmt_keras.models.concept_evidence import add_evidence
from bmt_keras.models.lora import LoraFactors
from bmt_keras.models.masked_token_trainer import MaskedTokenTrainer
from bmt_keras.models.projected_image import ProjectedImage
from bmt_keras.models.unpadded_albert import encode_without_padding


@keras.saving.register_keras_serializable(package="bmt_keras")
class BimodalMaskedLM(MaskedTokenTrainer):
    """Fills the masked tokens of a photo's caption.

    A functional model: ALBERT's states of the tokens and the photo's embedding
    are fused, and a head tied to ALBERT's token embedding gives the
    vocabulary's logits at the asked positions. Its `train_step` masks tokens
    by itself, so that it is fitted on whole captions.

    Args:
        text_tower: A `keras_nlp.models.AlbertBackbone`.
        fusion: A `BimodalFusion` as wide as the token embedding, or a
            `CrossAttentionFusion`.
        masking: A `TokenMasking`, used by `fit` and `evaluate`.
        image_embedding_shape: Shape of a photo's embedding, without batch.
            Taken from `image_tower` if that is given.
        image_tower: A model from pixels (batch, height, width, 3) to
            embeddings, trained along; None where embeddings are the input.
        max_caption_tokens: Give the model a head that predicts how many tokens
            a caption has, up to so many; None for no such head.
        label_smoothing: Label smoothing of the token loss.
        length_loss_weight: Weight of the length head's loss beside the token
            loss.
        concept_dim: Give the model a `ConceptHead` of so many hidden units:
            what it finds in a photo is added to the logits of
            `token_logits` and of `evaluate`, not to those of the call. For a
            `CrossAttentionFusion`. None for no such head.
        concept_weight: Weight of what it finds.
        lora_rank: Train changes of this rank to the text encoder's queries and
            values, and nothing else of it; None for no LoRA.

    Call arguments:
        inputs: Dictionary of
            `token_ids`: int32, (batch, length);
            `padding_mask`: int32, (batch, length), 1 token, 0 padding;
            `mask_positions`: int32, (batch, positions);
            `images`: float, (photos, height, width, 3) in [0, 255], or
            `image_embedding`: float, (photos, ...). `batch` is a multiple of
            `photos`, and the captions of a photo are neighbouring rows.

    Returns:
        Dictionary of `logits`, float, (batch, positions, vocabulary_size), and
        with a length head `length_logits`, float, (photos,
        max_caption_tokens + 1), and with a concept head `concept_logits`,
        float, (photos, vocabulary_size).
    """

    def __init__(
        self,
        text_tower: keras.Model,
        fusion: BimodalFusion | CrossAttentionFusion,
        *,
        masking: TokenMasking,
        image_embedding_shape: tuple[int, ...] | None = None,
        image_tower: keras.Model | None = None,
        max_caption_tokens: int | None = None,
        label_smoothing: float = 0.0,
        length_loss_weight: float = 0.1,
        concept_dim: int | None = None,
        concept_weight: float = 0.35,
        lora_rank: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Assembles the functional model."""
        if (image_tower is None) == (image_embedding_shape is None):
            raise ValueError(
                "Give either `image_tower` or `image_embedding_shape`. "
                f"Received: image_tower={image_tower}, "
                f"image_embedding_shape={image_embedding_shape}."
            )
        # === Layers ===
        self.text_tower = text_tower
        self.lora_rank = lora_rank
        self.lora = None
        if lora_rank is not None:
            self.lora = LoraFactors(text_tower, lora_rank, name="lora")
        # Nothing reads ALBERT's pooled output, so nothing would train it.
        text_tower.pooled_dense.trainable = False
        self.fusion = fusion
        self.masking = masking
        self.image_tower = image_tower
        projects = isinstance(fusion, BimodalFusion)
        self.head = MaskedTokenHead(
            text_tower.token_embedding,
            hidden_units=None if projects else text_tower.embedding_dim,
            name="masked_token_head",
        )
        self.length_head = None
        if max_caption_tokens is not None:
            self.length_head = LengthHead(
                max_caption_tokens,
                hidden_units=text_tower.hidden_dim,
                name="length_head",
            )
        self.concept_head = None
        if concept_dim is not None:
            if projects:
                raise ValueError(
                    "`concept_dim` must be None for a `BimodalFusion`. "
                    f"Received: concept_dim={concept_dim}."
                )
            self.concept_head = ConceptHead(
                text_tower.vocabulary_size,
                hidden_units=concept_dim,
                name="concept_head",
            )
        self.token_loss = MaskedTokenLoss(
            label_smoothing=label_smoothing, name="masked_token_loss"
        )
        # Both run beside the functional graph and hold no weights.
        self.masking.build((None, None))
        self.token_loss.build((None, None, text_tower.vocabulary_size))

        # === Functional Model ===
        token_ids = keras.Input((None,), dtype="int32", name="token_ids")
        padding_mask = keras.Input((None,), dtype="int32", name="padding_mask")
        positions = keras.Input((None,), dtype="int32", name="mask_positions")
        if image_tower is None:
            image = keras.Input(image_embedding_shape, name="image_embedding")
            embedding = image
        else:
            image = keras.Input(image_tower.input.shape[1:], name="images")
            embedding = image_tower(image)
        outputs = {
            "logits": self._logits_at(
                self._fuse(
                    self.encode_text(token_ids, padding_mask),
                    padding_mask,
                    embedding,
                    training=None,
                ),
                positions,
            )
        }
        if self.length_head is not None:
            outputs["length_logits"] = self.length_head(embedding)
        if self.concept_head is not None:
            outputs["concept_logits"] = self.concept_head(embedding)
        inputs = (token_ids, padding_mask, positions, image)
        super().__init__(
            inputs={each.name: each for each in inputs},
            outputs=outputs,
            **kwargs,
        )

        # === Config ===
        self.image_embedding_shape = tuple(embedding.shape[1:])
        self.max_caption_tokens = max_caption_tokens
        self.label_smoothing = label_smoothing
        self.length_loss_weight = length_loss_weight
        self.concept_dim = concept_dim
        self.concept_weight = concept_weight

    @property
    def image_input(self) -> str:
        """Name of the input that takes the photo."""
        return "image_embedding" if self.image_tower is None else "images"

    def token_logits(
        self,
        token_ids: Any,
        padding_mask: Any,
        image_embedding: Any,
        *,
        mask_positions: Any | None = None,
        projected_image: Any | None = None,
        skip_padding: bool = False,
        training: bool | None = None,
    ) -> Any:
        """The vocabulary's logits, from an image embedding.

        Outside of training they hold what a concept head finds, too.

        Args:
            token_ids: int32, (batch, length).
            padding_mask: int32, (batch, length).
            image_embedding: float, (photos, ...); a divisor of the batch.
            mask_positions: int32, (batch, positions), or (positions,) of the
                flattened batch * length; None for all positions.
            projected_image: From `project_image`: read instead of the
                embedding.
            skip_padding: Run ALBERT without dropout at the tokens alone, and
                once for equal captions without a word: the same logits at
                tokens in less time, any numbers at padding.
            training: Whether dropout is on.

        Returns:
            float, (batch, positions or length, vocabulary_size), or
            (positions, vocabulary_size) where the positions are flat.
        """
        if skip_padding:
            masking = self.masking
            states = compute_blank_once(
                partial(encode_without_padding, self.text_tower),
                token_ids,
                padding_mask,
                special_token_ids=[
                    *masking.special_token_ids,
                    masking.mask_token_id,
                ],
            )
        else:
            states = self.encode_text(
                token_ids, padding_mask, training=training
            )
        if projected_image is not None:
            states = self.fusion.attend(
                states, projected_image.cells, padding_mask
            )
            evidence = projected_image.evidence
        else:
            states = self._fuse(
                states, padding_mask, image_embedding, training=training
            )
            evidence = ()
            if not training:
                evidence, _ = self._read_concepts(image_embedding)
        logits = self._logits_at(states, mask_positions)
        if self.concept_head is None or training:
            return logits
        return add_evidence(
            logits, evidence, mask_positions, ops.shape(token_ids)
        )

    def encode_text(
        self, token_ids: Any, padding_mask: Any, *, training: bool | None = None
    ) -> Any:
        """ALBERT's states of the tokens, before they meet the photo.

        Args:
            token_ids: int32, (batch, length).
            padding_mask: int32, (batch, length).
            training: Whether dropout is on.

        Returns:
            float, (batch, length, hidden_dim).
        """
        return self.text_tower(
            {
                "token_ids": token_ids,
                "padding_mask": padding_mask,
                "segment_ids": ops.zeros_like(token_ids),
            },
            training=training,
        )["sequence_output"]

    def project_image(self, image_embedding: Any) -> ProjectedImage | None:
        """What tokens read of a photo, for many calls of `token_logits`.

        Args:
            image_embedding: float, (photos, ...).

        Returns:
            What depends on the photos alone; None for a fusion that has no
            such step.
        """
        if isinstance(self.fusion, BimodalFusion):
            return None
        return ProjectedImage(
            self.fusion.project_image(image_embedding),
            *self._read_concepts(image_embedding),
        )

    def predict_masked(
        self, inputs: dict[str, Any], *, training: bool
    ) -> dict[str, Any]:
        """As the call, of tokens that were encoded before as well.

        Args:
            inputs: The call's, with flat `mask_positions`; `text_states` in
                place of `token_ids` as `train_step` takes them.
            training: Whether dropout is on.

        Returns:
            As the call, `logits` (positions, vocabulary_size): in training
            those of the language model, else as from `token_logits`, and no
            `concept_logits`.
        """
        embedding = inputs[self.image_input]
        if self.image_tower is not None:
            embedding = self.image_tower(embedding, training=training)
        padding_mask = inputs.get("padding_mask")
        states = inputs.get("text_states")
        if states is None:
            states = self._encode_tokens(
                inputs["token_ids"], padding_mask, training=training
            )
        states = self._fuse(states, padding_mask, embedding, training=training)
        logits = self._logits_at(states, inputs["mask_positions"])
        if self.concept_head is not None and not training:
            evidence, _ = self._read_concepts(embedding)
            logits = add_evidence(
                logits,
                evidence,
                inputs["mask_positions"],
                ops.shape(padding_mask),
            )
        outputs = {"logits": logits}
        if self.length_head is not None:
            outputs["length_logits"] = self.length_head(
                embedding, training=training
            )
        if self.concept_head is not None and training:
            outputs["concept_logits"] = self.concept_head(
                embedding, training=True
            )
        return outputs

    def _read_concepts(self, image_embedding: Any) -> tuple[Any, Any]:
        """Evidence and shares of `ProjectedImage`."""
        if self.concept_head is None:
            return (), ()
        logits = self.concept_head(image_embedding, training=False)
        evidence = self.concept_head.evidence(logits)
        evidence = self.concept_weight * ops.stop_gradient(evidence)
        return evidence, ops.stop_gradient(ops.sigmoid(logits))

    def _encode_tokens(
        self, token_ids: Any, padding_mask: Any, *, training: bool
    ) -> Any:
        """As `encode_text`, in less time where there is no dropout."""
        if training and (self.text_tower.dropout or self.has_fixed_shapes):
            return self.encode_text(token_ids, padding_mask, training=True)
        return encode_without_padding(self.text_tower, token_ids, padding_mask)

    def _fuse(
        self,
        states: Any,
        padding_mask: Any,
        image_embedding: Any,
        *,
        training: bool | None,
    ) -> Any:
        options = {}
        if not isinstance(self.fusion, BimodalFusion):
            options["padding_mask"] = padding_mask
        return self.fusion(
            states, image_embedding, training=training, **options
        )

    def _logits_at(self, states: Any, mask_positions: Any | None) -> Any:
        if mask_positions is None or len(mask_positions.shape) == 2:
            return self.head(states, mask_positions=mask_positions)
        states = ops.reshape(states, (1, -1, states.shape[-1]))
        return self.head(states, mask_positions=mask_positions[None])[0]

    def get_config(self) -> dict[str, Any]:
        """Returns what rebuilds the model."""
        serialize = keras.saving.serialize_keras_object
        encoder = self.image_tower
        shape = None if encoder is not None else self.image_embedding_shape
        return {
            "name": self.name,
            "trainable": self.trainable,
            "text_tower": serialize(self.text_tower),
            "fusion": serialize(self.fusion),
            "masking": serialize(self.masking),
            "image_tower": None if encoder is None else serialize(encoder),
            "image_embedding_shape": shape,
            "max_caption_tokens": self.max_caption_tokens,
            "label_smoothing": self.label_smoothing,
            "length_loss_weight": self.length_loss_weight,
            "concept_dim": self.concept_dim,
            "concept_weight": self.concept_weight,
            "lora_rank": self.lora_rank,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> "BimodalMaskedLM":
        """Rebuilds the model from its configuration."""
        config = dict(config)
        for name in ("text_tower", "fusion", "masking", "image_tower"):
            if isinstance(config[name], dict):
                config[name] = keras.saving.deserialize_keras_object(
                    config[name], custom_objects=custom_objects
                )
        if config["image_embedding_shape"] is not None:
            config["image_embedding_shape"] = tuple(
                config["image_embedding_shape"]
            )
        return cls(**config)
