"""Training examples: opened from files, hub or memory, streamed in order, cut and batched."""

from headwater.corpus.batches import batches_by_length, padding_share
from headwater.corpus.corpus import Corpus
from headwater.corpus.document import Document, content_hash, plain_text
from headwater.corpus.duplicates import DuplicateCounter
from headwater.corpus.rows import BadRow

__all__ = [
    "BadRow",
    "Corpus",
    "Document",
    "DuplicateCounter",
    "batches_by_length",
    "content_hash",
    "padding_share",
    "plain_text",
]
