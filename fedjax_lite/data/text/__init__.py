"""Text as numbers: vocabularies, and windows with the token that follows each."""

from fedjax_lite.data.text.vocabulary import BEGIN, END, PAD, SPECIAL, UNKNOWN, Vocabulary, decode, encode, tokens_of, vocabulary_of
from fedjax_lite.data.text.windows import windows

__all__ = ["BEGIN", "END", "PAD", "SPECIAL", "UNKNOWN", "Vocabulary", "decode", "encode", "tokens_of", "vocabulary_of", "windows"]
